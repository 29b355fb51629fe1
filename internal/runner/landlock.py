"""Which files a script can reach: Landlock, which needs no privilege.

Names and numbers are those of linux/landlock.h.
"""

import ctypes
import os
import stat
import struct

from linux import IS_LINUX, system_call

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE, IOCTL_DEV = (1 << bit for bit in (0, 1, 2, 3, 14, 15))
READ = EXECUTE | READ_FILE | READ_DIR
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
SCOPE_ABSTRACT_UNIX_SOCKET, SCOPE_SIGNAL = 1 << 0, 1 << 1

# The highest right that a version of the interface knows.
HIGHEST_BIT = {1: 12, 2: 13, 3: 14, 4: 14}
HIGHEST_BIT_NOW = 15


def version():
    """0: this kernel has none, or it is switched off."""
    if not IS_LINUX:
        return 0
    try:
        return system_call(
            CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(CREATE_RULESET_VERSION)
        )
    except OSError:
        return 0


def restrict(abi, reads, writes):
    """Leaves this process nothing but what is below these paths, and, from version 6 on, neither
    signals to others nor their sockets with abstract names. Paths that are not there are passed over.
    """
    rights = (1 << (HIGHEST_BIT.get(abi, HIGHEST_BIT_NOW) + 1)) - 1
    handled = [rights]
    if abi >= 4:
        handled.append(0)
    if abi >= 6:
        handled.append(SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL)
    attributes = struct.pack("=%dQ" % len(handled), *handled)
    size = ctypes.c_size_t(len(attributes))
    ruleset = system_call(CREATE_RULESET, attributes, size, ctypes.c_uint32(0))
    for path in reads:
        _allow(ruleset, path, READ)
    for path in writes:
        _allow(ruleset, path, rights)
    system_call(RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)


def _allow(ruleset, path, allowed):
    try:
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(file).st_mode):
            allowed &= OF_FILES
        rule = struct.pack("=Qi", allowed, file)
        kind = ctypes.c_int(RULE_PATH_BENEATH)
        system_call(ADD_RULE, ctypes.c_int(ruleset), kind, rule, ctypes.c_uint32(0))
    finally:
        os.close(file)
