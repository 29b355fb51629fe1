"""From fork to exec: what becomes a script, or does a piece of work in the runner's place."""

import errno
import json
import os
import signal

from confinement import limit_resources
from folders import lay_out
from linux import PR_SET_PDEATHSIG, prctl
from log import warn

EXEC_FAILED = 127
# Python ignores these, or the runner handles them; a script begins with what everybody begins with.
SIGNALS = ("SIGPIPE", "SIGXFSZ", "SIGINT", "SIGTERM", "SIGHUP", "SIGCHLD")
# Of exec: no fault of the script's.
OURS = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EIO)
MESSAGE_CHARS = 2000


def fork(work, keep=()):
    """Starts a process that does `work` and ends. @returns its number. Raises OSError.

    @param keep: the files that it may have beside the standard ones: what others wait to see closed is not its to hold.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid != 0:
        return pid
    status = EXEC_FAILED
    try:
        signal.set_wakeup_fd(-1)
        close_all_but(keep)
        for name in SIGNALS:
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            work()
            status = 0
    except BaseException as error:
        # Nothing of the parent's may run here: neither its loop nor its clean-up.
        warn(error)
    finally:
        os._exit(status)


def close_all_but(keep):
    for name in os.listdir("/dev/fd"):
        file = int(name)
        if file > 2 and file not in keep:
            try:
                os.close(file)
            except OSError:
                # That of the list itself.
                pass


def become_script(request, env, streams, told, attempt, confinement):
    """Does not return. What goes wrong is written to `told`, which exec closes."""
    try:
        if request.get("layout") is not None:
            lay_out(request["layout"], attempt, request["temps"])
    except Exception as error:
        tell(told, True, "its folder cannot be laid out: %s" % error)
    try:
        for number, stream in enumerate(streams):
            os.set_blocking(stream.fileno(), True)
            os.dup2(stream.fileno(), number)
        os.chdir(request["cwd"])
        os.umask(0o022)
        limits = request["limits"]
        limit_resources(limits["cpuSeconds"], limits["fileBytes"], limits["openFiles"])
        if confinement is not None:
            paths = request["reads"], [attempt, *request["writes"]]
            confinement.apply(request["network"], *paths)
        os.execve(request["argv"][0], request["argv"], env)
    except (OSError, ValueError) as error:
        code = getattr(error, "errno", None)
        named = code is not None and error.filename is not None
        message = "%s: %s" % (error.strerror, error.filename) if named else str(error)
        tell(told, code in OURS, message, is_absent(request["argv"][0], code))


def is_absent(program, code):
    """Whether it is the program itself that is not there, not what it needs."""
    return code in (errno.ENOENT, errno.ENOTDIR) and not os.path.lexists(program)


def tell(told, ours, message, absent=False):
    """Does not return. The pipe holds more than this, so nobody need read it now."""
    failure = {"ours": ours, "absent": absent, "message": message[:MESSAGE_CHARS]}
    os.write(told, json.dumps(failure).encode())
    os._exit(EXEC_FAILED)
