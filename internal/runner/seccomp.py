"""Which system calls a script can make: a seccomp filter, which needs no privilege.

Numbers are those of Linux's own headers; the program is classic BPF.
"""

import ctypes
import platform
import socket
import struct

from linux import PR_SET_SECCOMP, prctl

# Name: (x86_64, aarch64). What no ordinary program calls. What is refused without privilege anyway
# is named too, so that it stays so where there is some.
REFUSED = {
    # Other processes.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # Namespaces and mounts.
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    # The kernel, its keys, its files.
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "open_by_handle_at": (304, 265),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "syslog": (103, 116),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
}
# Of these, only what a process does to itself: its number is given as 0. Whoever is of the same user could
# otherwise take from any process, the runner too, what it needs to live. Name: (x86_64, aarch64).
OWN_ONLY = {
    "prlimit64": (302, 261),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
}
# The same by their second argument, of a process (0) by the first.
OWN_ONLY_BY_SECOND = {
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
}
IOPRIO_OF_PROCESS = 1
# Callers have another way when these are not there. io_uring makes sockets past any filter; the
# flags of clone3 lie where no filter can look. What is made by the others outlives a script, is counted as
# nobody's memory, or tells of other scripts' files.
ABSENT = {
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "inotify_add_watch": (254, 27),
    "fanotify_init": (300, 262),
    "clone3": (435, 435),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
CLONE = (56, 220)
SOCKET = (41, 198)
# How much the kernel keeps for others to read: what is kept counts as no process's memory. Programs ask for
# more in the hope of speed: the one is passed over, the other is refused as it is beyond a system's limit.
SETSOCKOPT = (54, 208)
SOL_SOCKET = 1
# SNDBUF, RCVBUF, and FORCE of both.
BUFFER_SIZES = (7, 8, 32, 33)
FCNTL = (72, 25)
F_SETPIPE_SZ = 1031

MACHINES = ("x86_64", "aarch64")
ARCHITECTURES = (0xC000003E, 0xC00000B7)
# The same calls of x86_64 once more, with a bit set.
X32 = 0x40000000
# NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
NEW_NAMESPACES = 0x7E020080

AF_NETLINK = 16
NO_ERROR, EPERM, EACCES, ENOSYS = 0, 1, 13, 38
MODE_FILTER = 2
RETURN_ALLOW, RETURN_ERRNO, RETURN_KILL = 0x7FFF0000, 0x00050000, 0x80000000
LOAD, RETURN = 0x20, 0x06
ALLOW = (RETURN, 0, 0, RETURN_ALLOW)
IF_EQUAL, IF_NOT_LESS, IF_ANY_BIT = 0x15, 0x35, 0x45
# Where the lower halves of arguments lie.
AT_NUMBER, AT_ARCHITECTURE = 0, 4
AT_FIRST_ARGUMENT, AT_SECOND_ARGUMENT, AT_THIRD_ARGUMENT = 16, 24, 32
# Before version 3 Landlock did not know of it.
TRUNCATE = (76, 45)
LANDLOCK_WITH_TRUNCATE = 3


def is_known_machine():
    return platform.machine() in MACHINES


def program(network, landlock):
    """@param network: whether sockets beyond this host's own may be made.
    @param landlock: the version of it that keeps scripts from files.
    """
    machine = MACHINES.index(platform.machine())
    code = [
        (LOAD, 0, 0, AT_ARCHITECTURE),
        (IF_EQUAL, 1, 0, ARCHITECTURES[machine]),
        (RETURN, 0, 0, RETURN_KILL),
        (LOAD, 0, 0, AT_NUMBER),
    ]
    if MACHINES[machine] == "x86_64":
        code += [(IF_NOT_LESS, 0, 1, X32), _refuse(ENOSYS)]
    refused = dict(REFUSED, truncate=TRUNCATE) if landlock < LANDLOCK_WITH_TRUNCATE else REFUSED
    for calls, error in ((refused, EPERM), (ABSENT, ENOSYS)):
        for numbers in calls.values():
            if numbers[machine] is not None:
                code += _of_call(numbers[machine], [_refuse(error)])
    for numbers in OWN_ONLY.values():
        code += _of_call(
            numbers[machine],
            [(LOAD, 0, 0, AT_FIRST_ARGUMENT), (IF_EQUAL, 1, 0, 0), _refuse(EPERM), ALLOW],
        )
    for name, numbers in OWN_ONLY_BY_SECOND.items():
        code += _of_call(
            numbers[machine],
            [
                (LOAD, 0, 0, AT_FIRST_ARGUMENT),
                (IF_EQUAL, 0, 3, IOPRIO_OF_PROCESS if name == "ioprio_set" else 0),
                (LOAD, 0, 0, AT_SECOND_ARGUMENT),
                (IF_EQUAL, 0, 1, 0),
                ALLOW,
                _refuse(EPERM),
            ],
        )
    code += _of_call(
        CLONE[machine],
        [(LOAD, 0, 0, AT_FIRST_ARGUMENT), (IF_ANY_BIT, 0, 1, NEW_NAMESPACES), _refuse(EPERM), ALLOW],
    )
    code += _of_call(
        FCNTL[machine],
        [(LOAD, 0, 0, AT_SECOND_ARGUMENT), (IF_EQUAL, 0, 1, F_SETPIPE_SZ), _refuse(EPERM), ALLOW],
    )
    sizes = [(IF_EQUAL, 0, 1, name) for name in BUFFER_SIZES]
    passed = [each for size in sizes for each in (size, _refuse(NO_ERROR))]
    level = [(LOAD, 0, 0, AT_SECOND_ARGUMENT), (IF_EQUAL, 1, 0, SOL_SOCKET), ALLOW]
    body = [*level, (LOAD, 0, 0, AT_THIRD_ARGUMENT), *passed, ALLOW]
    code += _of_call(SETSOCKOPT[machine], body)
    families = [socket.AF_UNIX] + ([socket.AF_INET, socket.AF_INET6, AF_NETLINK] if network else [])
    made = [(LOAD, 0, 0, AT_FIRST_ARGUMENT)]
    for family in families:
        made += [(IF_EQUAL, 0, 1, int(family)), ALLOW]
    code += [*_of_call(SOCKET[machine], [*made, _refuse(EACCES)]), ALLOW]
    return b"".join(struct.pack("=HBBI", *each) for each in code)


def _of_call(number, body):
    """What is done with one call; every way through it ends with a return."""
    return [(IF_EQUAL, 0, len(body), number), *body]


def _refuse(error):
    return (RETURN, 0, 0, RETURN_ERRNO | error)


def restrict(filter_program):
    """This process and all it will start, for good. `no_new_privs` has to be set before."""
    body = ctypes.create_string_buffer(filter_program, len(filter_program))
    header = struct.pack("@HP", len(filter_program) // 8, ctypes.addressof(body))
    pointer = ctypes.create_string_buffer(header, len(header))
    prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.addressof(pointer))
