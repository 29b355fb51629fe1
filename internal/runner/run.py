"""One run of a script: started, looked at, ended, and told of."""

import json
import os
import signal
import time

from child import become_script, fork
from descendants import exact_memory_bytes
from held import SOCKET_BYTES, Held, open_files

MEGABYTE = 1_048_576
# A variable of a script's environment that none but its own processes can know.
MARK = "MR_RUN"
# Memory that is looked at closely is not looked at again for so many times as long as that took.
EXACT_PAUSE = 20


class Run:
    """States: started, ended. `tell` is given events for whoever asked for the run."""

    def __init__(self, request, streams, attempt, confinement, oom_offer, tell):
        self.limits = request["limits"]
        env = {**request["env"], MARK: os.urandom(16).hex()}
        self.mark = os.fsencode("%s=%s" % (MARK, env[MARK]))
        self._tell = tell
        self._reaped = False
        self._exact_from = 0.0
        self._over = None
        # CPU seconds of every process seen, by number and start: they count when it is gone, too.
        self._cpu = {}
        read, write = os.pipe()
        self._told = read
        os.set_blocking(read, False)
        keep = [write, *(stream.fileno() for stream in streams)]
        try:
            with oom_offer:
                self.pid = fork(
                    lambda: become_script(request, env, streams, write, attempt, confinement), keep
                )
        except OSError:
            os.close(read)
            raise
        finally:
            os.close(write)

    def kill(self):
        """All of its group at once: no fork of it escapes."""
        if self._reaped:
            # The number may be somebody else's by now.
            return
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except OSError:
            # Not yet a group of its own, or all of it is gone.
            try:
                os.kill(self.pid, signal.SIGKILL)
            except OSError:
                pass

    def look(self, processes, shared_bytes, is_alone):
        """At its processes of this moment: more than it may have ends it.

        @param shared_bytes: what lies in /dev/shm; all of it is this one's if it `is_alone`.
        """
        most = self.limits
        if 0 < most["processes"] < sum(process.threads for process in processes):
            self._stop("it ran more than %d processes at a time" % most["processes"])
        if self._takes_more_than(most["memoryBytes"], processes, shared_bytes, is_alone):
            self._stop(self._too_large())
        if most["cpuSeconds"] > 0:
            for process in processes:
                self._cpu[process.pid, process.started] = process.cpu_seconds
            if sum(self._cpu.values()) > most["cpuSeconds"]:
                self._stop(self._too_long())

    def _takes_more_than(self, most, processes, shared_bytes, is_alone):
        """Pages that processes share are counted more than once at first, and every file as if it were the worst:
        to look closer takes its time.
        """
        if most == 0:
            return False
        files = sum(open_files(process.pid) for process in processes)
        resident = sum(process.memory_bytes for process in processes)
        if resident + files * SOCKET_BYTES + shared_bytes <= most:
            return False
        start = time.monotonic()
        if start < self._exact_from:
            return False
        own, mapped = exact_memory_bytes(processes)
        held = Held(processes)
        shared = max(mapped, shared_bytes if is_alone else held.shared_bytes)
        now = time.monotonic()
        self._exact_from = now + EXACT_PAUSE * (now - start)
        return own + shared + held.unread_bytes() > most

    def _stop(self, limit):
        self._over = self._over or limit
        self.kill()

    def ended(self, status, peak_bytes):
        """Its first process was waited for.

        @param peak_bytes: the most memory that it, or one that it waited for, has had.
        """
        self._reaped = True
        failure = self._failure()
        if failure is not None:
            return self._tell({"event": "failed", **failure})
        if not os.WIFSIGNALED(status):
            return self._end(os.WEXITSTATUS(status), None)
        number = os.WTERMSIG(status)
        # Between two looks: Node gave up by itself, or the kernel had none left.
        if number in (signal.SIGABRT, signal.SIGKILL) and 0 < self.limits["memoryBytes"] < peak_bytes:
            self._over = self._over or self._too_large()
        if number == signal.SIGXCPU:
            self._over = self._over or self._too_long()
        if number == signal.SIGXFSZ:
            megabytes = round(self.limits["fileBytes"] / MEGABYTE)
            self._over = self._over or "it wrote a file of more than %d MB" % megabytes
        self._end(None, _name(number))

    def _end(self, code, signal_name):
        self._tell({"event": "ended", "code": code, "signal": signal_name, "over": self._over})

    def _failure(self):
        try:
            text = os.read(self._told, 65536)
        except BlockingIOError:
            text = b""
        os.close(self._told)
        try:
            return json.loads(text) if text else None
        except ValueError:
            return {"ours": True, "message": "it ended while it was being started"}

    def _too_large(self):
        return "it took more than %d MB of memory" % round(self.limits["memoryBytes"] / MEGABYTE)

    def _too_long(self):
        return "it used more than %d s of processor time" % self.limits["cpuSeconds"]


def _name(number):
    try:
        return signal.Signals(number).name
    except ValueError:
        return "SIG%d" % number
