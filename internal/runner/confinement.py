"""What a script is kept to: the strictest that needs no privilege, so it works in a restricted pod."""

import resource
import sys

import landlock
import seccomp
from linux import IS_LINUX, PR_SET_NO_NEW_PRIVS, prctl

# What programs need to run at all. Neither /tmp, /run nor /var, nor anybody's home.
SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/proc", "/sys",
)
DEVICES = (
    "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/shm",
)


class Confinement:
    def __init__(self):
        if not IS_LINUX or not seccomp.is_known_machine():
            raise SystemExit("runner: --closed needs Linux on %s" % " or ".join(seccomp.MACHINES))
        self.landlock = landlock.version()
        self._programs = {network: seccomp.program(network, self.landlock) for network in (False, True)}

    def apply(self, network, reads, writes):
        """To this process, which is about to become a script."""
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        if self.landlock > 0:
            readable = [*SYSTEM, sys.base_prefix, *reads]
            landlock.restrict(self.landlock, readable, [*DEVICES, *writes])
        seccomp.restrict(self._programs[network])


# At its limit a process is told (SIGXCPU), which ends it unless it does not listen; so much later it is ended.
CPU_GRACE_SECONDS = 1


def limit_resources(cpu_seconds, file_bytes, open_files):
    """Of each process; 0: as it is. A dump of memory is never written."""
    _limit(resource.RLIMIT_CPU, cpu_seconds, CPU_GRACE_SECONDS)
    _limit(resource.RLIMIT_FSIZE, file_bytes, 0)
    _limit(resource.RLIMIT_NOFILE, open_files, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit(what, soft, grace):
    if soft == 0:
        return
    most = resource.getrlimit(what)[1]
    limits = (soft, soft + grace)
    if most != resource.RLIM_INFINITY:
        limits = tuple(min(each, most) for each in limits)
    resource.setrlimit(what, limits)
