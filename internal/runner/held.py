"""Memory that the kernel holds for processes: in sockets, in pipes, in files of /dev/shm.

What waits in a socket of this host's own kind is told nowhere that we may look, so each counts as what it may
hold; as long as a script has too few files for that to matter, nobody looks closer.
"""

import os
import re

SHARED = "/dev/shm"
DEFAULT_SEND_BUFFER = "/proc/sys/net/core/wmem_default"
PIPE_BYTES = 65536
BLOCK_BYTES = 512
INTERNET = ("tcp", "tcp6", "udp", "udp6")
LINK = re.compile(r"(socket|pipe):\[(\d+)\]\Z")


def _socket_bytes():
    try:
        with open(DEFAULT_SEND_BUFFER) as file:
            return int(file.read())
    except (OSError, ValueError):
        # Not to be seen in every network namespace.
        return 212992


# What a program cannot raise (seccomp.py).
SOCKET_BYTES = _socket_bytes()


def shared_bytes():
    """What all files in /dev/shm take, those included whose name is gone."""
    try:
        found = os.statvfs(SHARED)
    except OSError:
        return 0
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def open_files(pid):
    """How many files a process has open."""
    folder = "/proc/%d/fd" % pid
    try:
        # Since Linux 6.2 it is said without a list.
        return os.stat(folder).st_size or len(os.listdir(folder))
    except OSError:
        return 0


class Held:
    """By all files of some processes, each file once, in bytes."""

    def __init__(self, processes):
        self.shared_bytes = 0
        self._sockets = set()
        self._pipes = set()
        self._shared = set()
        for process in processes:
            self._add("/proc/%d/fd" % process.pid)

    def _add(self, folder):
        try:
            names = os.listdir(folder)
        except OSError:
            # It has ended, or hides.
            return
        for name in names:
            path = os.path.join(folder, name)
            try:
                self._add_file(path, os.readlink(path))
            except OSError:
                # Closed meanwhile.
                pass

    def _add_file(self, path, target):
        found = LINK.match(target)
        if found is not None:
            (self._sockets if found.group(1) == "socket" else self._pipes).add(found.group(2))
        elif target.startswith(SHARED + "/"):
            file = os.stat(path)
            if file.st_ino not in self._shared:
                self._shared.add(file.st_ino)
                self.shared_bytes += file.st_blocks * BLOCK_BYTES

    def unread_bytes(self):
        """In pipes and sockets, at the most."""
        queued = _queues(self._sockets) if self._sockets else {}
        others = len(self._sockets) - len(queued)
        return sum(queued.values()) + others * SOCKET_BYTES + len(self._pipes) * PIPE_BYTES


def _queues(wanted):
    """What waits in those that are connections beyond this host, by inode."""
    found = {}
    for kind in INTERNET:
        try:
            with open("/proc/net/" + kind) as file:
                lines = file.readlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 9 and fields[9] in wanted:
                found[fields[9]] = sum(int(queue, 16) for queue in fields[4].split(":"))
    return found
