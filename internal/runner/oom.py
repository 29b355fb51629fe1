"""Who goes first when memory runs out."""

MOST_LIKELY = b"1000"


class OomOffer:
    """While it is entered, processes that are started offer themselves to the kernel; this one does not for long.

    To be made before this process becomes unreadable: its own file is root's then.
    """

    def __init__(self):
        try:
            self._file = open("/proc/self/oom_score_adj", "r+b", 0)
            self._own = self._file.read().strip()
        except OSError:
            # Not on this system.
            self._file, self._own = None, b""

    def __enter__(self):
        self._write(MOST_LIKELY)

    def __exit__(self, *_):
        self._write(self._own)

    def _write(self, value):
        try:
            if self._file is not None:
                self._file.write(value)
        except OSError:
            # A container may be refused it.
            pass
