"""What is the runner's alone to clear: all processes of a container, or of a user of its own."""

import os
import signal
import socket
import struct

from descendants import kill_all
from folders import remove
from held import SHARED

ROOT = 0
# What was ending while we looked is in its place at the second look.
LOOKS = 2


class Container:
    def __init__(self, descendants):
        self._descendants = descendants
        self._is_first = os.getpid() == 1
        self._has_own_user = False

    def meet(self, worker, closed):
        """@param worker: a connection of the worker's, which tells whose it is."""
        if closed and hasattr(socket, "SO_PEERCRED"):
            _, user, _ = struct.unpack("3i", worker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            self._has_own_user = os.getuid() not in (user, ROOT)

    @property
    def is_cleared(self):
        """Whether what scripts leave here does not stay."""
        return self._is_first or self._has_own_user

    def is_ours(self):
        """Whether every process that we may signal has been started by us, or from outside of the container."""
        return self._is_first or (self._has_own_user and not self._descendants.has_neighbours())

    def end_strays(self, marks):
        """Ends what belongs to no running script, even what is replaced by another faster than any look: all stand
        still meanwhile, so none can come between. What came from outside, as a probe does, goes on: its parent is
        no process of this container, which no script can have.
        """
        if not signal_all(signal.SIGSTOP):
            return
        try:
            self._descendants.forget()
            for _ in range(LOOKS):
                _, fled = self._descendants.look(marks)
                kill_all(fled)
        finally:
            signal_all(signal.SIGCONT)

    def clear_shared_memory(self):
        """Nobody's that is another user's."""
        for name in os.listdir(SHARED):
            path = os.path.join(SHARED, name)
            try:
                if os.lstat(path).st_uid == os.getuid():
                    remove(path)
            except OSError:
                pass


def signal_all(number):
    """All others that this user may signal, at once. @returns: whether there is anybody."""
    try:
        os.kill(-1, number)
        return True
    except OSError:
        return False
