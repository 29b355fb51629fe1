"""The runner: starts scripts for a worker, in a place where none of the worker's secrets are.

    python3 -I internal/runner --listen ADDRESS --folder FOLDER [--closed] [--child]

ADDRESS is a path, or @NAME: a socket without a file, for all who share a network namespace, as the
containers of a pod do. A connection begins with a frame of 49 bytes: the secret (32), the number of what
it belongs to (16), and its kind:

    h           the worker's hello, by which the runner takes the secret as its own. While this
                connection stands the runner is that worker's; with it everything ends. One line of JSON
                may follow: see `Hello` in connections.py.
    c           a request, one line of JSON; answers are lines of JSON. When it closes, the request is off.
    0, 1, 2     what becomes stdin, stdout, stderr of the script that is asked for under the same number.
                The script gets the socket itself: its data never passes through here.

Requests (`op`): `run`, `remove`, `environment`; see `Request` in connections.py.
"""

import argparse
import hmac
import os
import re
import selectors
import signal
import socket
import sys
import time

from child import fork
from confinement import Confinement
from connections import FRAME_BYTES, SECRET_BYTES, Hello, Request, Stranger
from container import Container
from descendants import Descendants, kill_all
from environments import Environments
from folders import remove, removed_at_once
from held import shared_bytes
from linux import PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, prctl
from log import warn
from oom import OomOffer
from run import Run

# Connections that have not yet said who they are: beyond, the oldest goes.
STRANGERS_MAX = 256
LOOK_SECONDS = 0.2
PAUSE_SECONDS = 0.01
# After a script's end its processes are looked for so many times at once.
KILLING_LOOKS = 20
# Streams that no request comes for.
STREAMS_SECONDS = 60
ATTEMPT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}\Z")


class Runner:
    def __init__(self, options):
        self.folder = os.path.abspath(options.folder)
        self.address = options.listen
        self.is_child = options.child
        self.confinement = Confinement() if options.closed else None
        self.secret = None
        # How long the worker goes on when all are told to end; and when that is over.
        self.grace_seconds = 0.0
        self.ends_at = None
        self.selector = selectors.DefaultSelector()
        self.strangers = []
        # Of a number: when it was first met, and its streams by kind.
        self.streams = {}
        # Requests for runs whose streams have not all come.
        self.waiting = {}
        self.scripts = {}
        self.helpers = {}
        self.undisposed = []
        # There may be processes of scripts that have ended.
        self.unsettled = False
        self.descendants = Descendants()
        self.container = Container(self.descendants)
        self.environments = Environments(os.path.join(self.folder, "environments"), self.dispose)

    def about(self):
        landlock = self.confinement.landlock if self.confinement else 0
        closed = self.confinement is not None
        return {
            "folder": self.folder,
            "closed": closed,
            "landlock": landlock,
            "memoryBytes": memory_bytes(),
            "pid": os.getpid(),
            "uid": os.getuid(),
        }

    def serve(self):
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        self.oom_offer = OomOffer()
        if self.confinement is not None:
            # Scripts run as the same user: what is here is not theirs to read.
            prctl(PR_SET_DUMPABLE, 0)
            for name in os.listdir(self.folder):
                remove(os.path.join(self.folder, name))
        self.listen()
        wakeup, wake = socket.socketpair()
        for end in (wakeup, wake):
            end.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: self.told_to_end())
        self.watch(wakeup, lambda: self.reap() if wakeup.recv(4096) else None)
        if self.is_child:
            self.watch(sys.stdin, lambda: None if os.read(0, 4096) else self.end())
        next_look = 0.0
        while self.ends_at is None or time.monotonic() < self.ends_at:
            due = self.scripts or self.streams or self.unsettled or self.undisposed or self.ends_at
            timeout = max(0.0, next_look - time.monotonic()) if due else None
            for key, _ in self.selector.select(timeout):
                self.guarded(key.data)
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + LOOK_SECONDS
                self.guarded(self.look)
        self.end()

    def told_to_end(self):
        """By whoever started it. At once, unless the worker, which is told the same, has time to finish what runs."""
        if self.ends_at is None:
            self.ends_at = time.monotonic() + self.grace_seconds

    def listen(self):
        abstract = self.address.startswith("@")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if not abstract:
            try:
                os.unlink(self.address)
            except FileNotFoundError:
                pass
        listener.bind("\0" + self.address[1:] if abstract else self.address)
        listener.listen(1024)
        listener.setblocking(False)
        self.watch(listener, lambda: self.accept(listener))

    def watch(self, file, action):
        self.selector.register(file, selectors.EVENT_READ, action)

    def guarded(self, action):
        """One connection's trouble is not another's."""
        try:
            action()
        except Exception as error:
            warn(repr(error))
            # Out of files, or the like: not asked for again at once.
            time.sleep(PAUSE_SECONDS)

    # --- connections

    def accept(self, listener):
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        connection.setblocking(False)
        if len(self.strangers) >= STRANGERS_MAX:
            self.close(self.strangers.pop(0).connection)
        stranger = Stranger(self, connection)
        self.strangers.append(stranger)
        self.watch(connection, lambda: self.attend(stranger))

    def attend(self, peer):
        try:
            peer.on_readable()
        except BlockingIOError:
            pass
        except ConnectionError:
            if isinstance(peer, Request):
                self.gone(peer)
            elif isinstance(peer, Hello) or peer not in self.strangers:
                # One that was just introduced as our worker.
                self.end()
            else:
                self.strangers.remove(peer)
                self.close(peer.connection)

    def introduced(self, stranger):
        """The frame is whole, or will never be."""
        self.strangers.remove(stranger)
        connection, frame = stranger.connection, stranger.frame
        secret, number, kind = frame[:SECRET_BYTES], frame[SECRET_BYTES:-1].hex(), frame[-1:]
        if kind == b"h" and len(frame) == FRAME_BYTES and self.secret is None:
            self.secret = secret
            self.container.meet(connection, self.confinement is not None)
        elif kind == b"h" or self.secret is None or not hmac.compare_digest(secret, self.secret):
            return self.close(connection)
        self.selector.unregister(connection)
        if kind in (b"0", b"1", b"2"):
            _, streams = self.streams.setdefault(number, (time.monotonic(), {}))
            streams[kind] = connection
            return self.start_if_complete(number)
        connection.setblocking(True)
        peer = Hello(self, connection) if kind == b"h" else Request(self, connection, number)
        self.watch(connection, lambda: self.attend(peer))

    def close(self, connection):
        try:
            self.selector.unregister(connection)
        except KeyError:
            pass
        connection.close()

    # --- requests

    def asked(self, request, message):
        op = message["op"]
        if op == "run":
            self.waiting[request.number] = request, message
            self.start_if_complete(request.number)
        elif op == "kill":
            if request.script is not None:
                request.script.kill()
            elif self.waiting.pop(request.number, None) is not None:
                request.tell({"event": "ended", "code": None, "signal": "SIGKILL", "over": None})
        elif op == "remove":
            self.remove(request, self.attempt_folder(message["attempt"]))
        elif op == "environment":
            self.environments.ask(request, message["key"])
        elif op == "built":
            self.environments.built(request)
        else:
            raise ValueError("no such request: %s" % op)

    def remove(self, request, path):
        def done(is_gone):
            request.tell({"event": "removed"}) if is_gone else request.fail(OSError("%s stays" % path))

        if removed_at_once(path):
            done(True)
        else:
            self.help(lambda: remove(path), done)

    def attempt_folder(self, attempt):
        if ATTEMPT.match(attempt) is None or attempt == "environments":
            raise ValueError("not an attempt: %s" % attempt)
        return os.path.join(self.folder, attempt)

    def start_if_complete(self, number):
        if number not in self.waiting or len(self.streams.get(number, (0, {}))[1]) < 3:
            return
        request, message = self.waiting.pop(number)
        _, streams = self.streams.pop(number)
        try:
            folder = self.attempt_folder(message["attempt"])
            order = [streams[kind] for kind in (b"0", b"1", b"2")]
            if not self.scripts:
                self.descendants.forget()
            script = Run(message, order, folder, self.confinement, self.oom_offer, request.tell)
            request.script = script
            self.scripts[script.pid] = script
        except (OSError, ValueError, KeyError, TypeError) as error:
            request.fail(error)
        finally:
            for stream in streams.values():
                stream.close()

    def gone(self, request):
        """Nobody waits for the answer."""
        self.close(request.connection)
        self.waiting.pop(request.number, None)
        if request.script is not None:
            request.script.kill()
        self.environments.leave(request)

    # --- processes

    def help(self, work, done=lambda well: None):
        """What takes its time is done by a process of its own. `done` is told whether it ended well."""
        self.helpers[fork(work)] = done

    def dispose(self, path):
        try:
            self.help(lambda: remove(path))
        except OSError:
            # No process to be had: at a later look.
            self.undisposed.append(path)

    def look(self):
        for number, (since, streams) in list(self.streams.items()):
            if number not in self.waiting and time.monotonic() - since > STREAMS_SECONDS:
                del self.streams[number]
                for stream in streams.values():
                    stream.close()
        undisposed, self.undisposed = self.undisposed, []
        for path in undisposed:
            self.dispose(path)
        if self.unsettled and self.container.is_ours():
            self.container.end_strays(self.marks())
        if self.scripts or self.unsettled:
            found, fled = self.descendants.look(self.marks())
            self.unsettled = len(fled) > 0
            kill_all(fled)
            shared, is_alone = shared_bytes(), self.container.is_cleared and len(self.scripts) == 1
            for pid, script in self.scripts.items():
                script.look(found[pid], shared, is_alone)

    def marks(self):
        return {**{pid: script.mark for pid, script in self.scripts.items()}, **dict.fromkeys(self.helpers)}

    def reap(self):
        for pid, wait in ended_children():
            script = self.scripts.get(pid)
            if script is not None:
                # Not reaped yet, so the number is its own: its group ends at once.
                script.kill()
                self.kill_left(pid)
            status, peak_bytes = wait()
            if script is not None:
                del self.scripts[pid]
                script.ended(status, peak_bytes)
                self.clear()
            done = self.helpers.pop(pid, None)
            if done is not None:
                done(status == 0)

    def clear(self):
        """When no script runs, whatever there is has been left by one: processes that were replaced by others faster
        than any look, and shared memory, which is every later one's to read.
        """
        if not self.scripts and self.container.is_ours():
            self.container.end_strays(self.marks())
            self.container.clear_shared_memory()

    def kill_left(self, root):
        """All that the script has left behind: each look may find what was being started at the last."""
        for _ in range(KILLING_LOOKS):
            found, fled = self.descendants.look(self.marks())
            alive = [each for each in found[root] if each.state != b"Z"]
            left = [each for each in alive if each.pid != root] + fled
            if not left:
                return
            kill_all(left)
        self.unsettled = True

    def end(self):
        """The worker has gone, and with it all that was done for it."""
        for script in self.scripts.values():
            script.kill()
        for pid in self.scripts:
            self.kill_left(pid)
        if self.is_child and not self.address.startswith("@"):
            os.unlink(self.address)
            os.rmdir(os.path.dirname(self.address))
        os._exit(0)


def ended_children():
    """The number of each child that has ended, and what waits for it; only then is the number given away."""
    while True:
        try:
            if hasattr(os, "waitid"):
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                pid = ended.si_pid if ended is not None else 0
                waited = None
            else:
                waited = os.wait4(-1, os.WNOHANG)
                pid = waited[0]
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, lambda: status_and_peak(*(waited or os.wait4(pid, 0)))


def status_and_peak(_pid, status, usage):
    """The peak of its memory is in bytes."""
    return status, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_bytes():
    """What this machine has, or what this container may have of it."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            with open("/sys/fs/cgroup/" + path) as file:
                limits.append(int(file.read()))
        except (OSError, ValueError):
            # Another version of cgroups, or no limit.
            pass
    return min(limits)


def main():
    parser = argparse.ArgumentParser(prog="runner", description="Starts scripts for a worker.")
    parser.add_argument("--listen", required=True, metavar="ADDRESS", help="a path, or @NAME")
    parser.add_argument("--folder", required=True, help="where scripts live; with --closed it is emptied first")
    parser.add_argument("--closed", action="store_true", help="keep scripts to the strictest the kernel offers")
    parser.add_argument(
        "--child", action="store_true", help="end when stdin does, and remove the folder of ADDRESS"
    )
    Runner(parser.parse_args()).serve()


main()
