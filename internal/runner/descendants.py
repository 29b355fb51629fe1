"""Which processes the scripts have started, as /proc tells.

The runner is a subreaper: whatever a script starts stays below it, also when its parent is gone. So
nothing gets away, and nobody else's process is taken for a script's. Where there is no /proc, only
process groups are known.
"""

import os
import re
import signal

TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Process:
    __slots__ = ("pid", "state", "parent", "group", "session", "cpu_seconds", "threads", "started", "memory_bytes")

    def __init__(self, pid, stat):
        # The name, in brackets, may hold anything.
        fields = stat[stat.rindex(b")") + 2 :].split()
        self.pid = pid
        self.state = fields[0]
        self.parent, self.group, self.session = (int(fields[i]) for i in (1, 2, 3))
        self.cpu_seconds = (int(fields[11]) + int(fields[12])) * TICK_SECONDS
        # Those of one that has ended are gone; it is counted as one still.
        self.threads = max(1, int(fields[17]))
        self.started = fields[19]
        self.memory_bytes = int(fields[21]) * PAGE_BYTES


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _process(pid):
    stat = _read("/proc/%d/stat" % pid)
    return Process(pid, stat) if stat else None


def kill_all(processes):
    for process in processes:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except OSError:
            # It has ended by itself.
            pass


def _users(pid):
    """Real, effective, saved; /proc itself shows root's for who does not want to be looked into."""
    found = re.search(rb"^Uid:\s+(.*)$", _read("/proc/%d/status" % pid), re.M)
    return [] if found is None else [int(number) for number in found.group(1).split()]


def exact_memory_bytes(processes):
    """With what they share counted once; slower than the sum of what each has.

    @returns: what is theirs alone, and what lies in shared memory, in bytes.
    """
    own = shared = 0
    for process in processes:
        rollup = _read("/proc/%d/smaps_rollup" % process.pid)
        all_of_it, of_shared = _kilobytes(rollup, b"Pss"), _kilobytes(rollup, b"Pss_Shmem") or 0
        own += process.memory_bytes if all_of_it is None else (all_of_it - of_shared) * 1024
        shared += of_shared * 1024
    return own, shared


def _kilobytes(rollup, name):
    found = re.search(rb"^%s:\s+(\d+) kB" % name, rollup, re.M)
    return None if found is None else int(found.group(1))


class Descendants:
    def __init__(self):
        self._root = os.getpid()
        # Processes that are nobody's here, and never will be.
        self._foreign = set()
        # Of each process of a script, by number and start: the script's first process.
        self._owners = {}

    def forget(self):
        """Nothing was looked at for a while: numbers may be others' by now."""
        self._foreign.clear()

    def has_neighbours(self):
        """Whether a process of the same user runs that none of ours has started."""
        self.forget()
        self._below()
        return any(os.getuid() in _users(pid) for pid in self._foreign)

    def look(self, marks):
        """What each script runs now; and what belongs to none of them, so it has fled, or outlived its own.

        @param marks: of each running script, by the number of its first process: NAME=VALUE that only
            its environment has.
        @returns: lists of processes by the script's first, and one more list.
        """
        # Numbers are used again: what is a script's now may have been somebody else's.
        self._foreign -= marks.keys()
        processes = self._below()
        owners = {}
        found = {root: [] for root in marks}
        fled = []
        for pid in processes:
            chain = []
            at = processes.get(pid)
            # Up to one whose owner is known, or to what lies right below us.
            while at is not None and at.pid not in owners:
                chain.append(at)
                at = processes.get(at.parent)
            above = owners.get(at.pid) if at is not None else None
            for process in reversed(chain):
                above = self._owner(process, above, marks)
                owners[process.pid] = above
        for pid, owner in owners.items():
            # One that has ended counts, and can be killed no more.
            if owner in found or processes[pid].state != b"Z":
                found.get(owner, fled).append(processes[pid])
        self._owners = {(pid, processes[pid].started): owner for pid, owner in owners.items() if owner}
        return found, fled

    def _owner(self, process, above, marks):
        if process.pid in marks:
            return process.pid
        if above is not None:
            return above
        known = self._owners.get((process.pid, process.started))
        if known is not None:
            return known
        for root in (process.group, process.session):
            if root in marks:
                return root
        environment = _read("/proc/%d/environ" % process.pid).split(b"\0")
        return next((root for root, mark in marks.items() if mark in environment), None)

    def _below(self):
        """All processes below this one, by number."""
        try:
            numbers = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        except OSError:
            return {}
        self._foreign &= numbers
        seen = {}
        for pid in numbers - self._foreign - {self._root}:
            process = _process(pid)
            if process is not None:
                seen[pid] = process
        below = {}
        for pid, process in seen.items():
            chain = [process]
            while chain[-1].parent in seen and chain[-1].pid not in below:
                chain.append(seen[chain[-1].parent])
            end = chain[-1]
            if end.pid in below or end.parent == self._root:
                below.update((each.pid, each) for each in chain)
            # A parent that came or went while we read: then the next look tells.
            elif end.parent in self._foreign or end.parent == 0:
                self._foreign.update(each.pid for each in chain)
        return below
