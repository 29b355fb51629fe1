"""The few calls of the kernel that Python has no function for."""

import ctypes
import os
import sys

_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

IS_LINUX = _LIBC is not None

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38


def prctl(option, value=0, pointer=0):
    """Does nothing where there is no such call. Raises OSError."""
    if _LIBC is None:
        return
    if _LIBC.prctl(option, ctypes.c_ulong(value), ctypes.c_void_p(pointer), 0, 0) != 0:
        raise _error("prctl %d" % option)


def system_call(number, *arguments):
    """Raises OSError."""
    result = _LIBC.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise _error("system call %d" % number)
    return result


def _error(what):
    code = ctypes.get_errno()
    return OSError(code, "%s: %s" % (what, os.strerror(code)))
