"""The three kinds of connection: one that has not said who it is, the worker's hello, and a request of it.

What they hear they tell the runner; what goes over them stands in `__main__.py`.
"""

import json

SECRET_BYTES, NUMBER_BYTES = 32, 16
FRAME_BYTES = SECRET_BYTES + NUMBER_BYTES + 1
LINE_BYTES_MAX = 16 * 1024 * 1024


class Stranger:
    """A connection before its frame was read. No byte beyond is touched: it is the script's."""

    def __init__(self, runner, connection):
        self.runner = runner
        self.connection = connection
        self.frame = b""

    def on_readable(self):
        part = self.connection.recv(FRAME_BYTES - len(self.frame))
        self.frame += part
        if len(self.frame) == FRAME_BYTES or not part:
            self.runner.introduced(self)


class Hello:
    """The worker's life line. It may say {"graceSeconds"}: how long it goes on when it is told to end."""

    def __init__(self, runner, connection):
        self.runner = runner
        self.connection = connection
        self.line = b""
        about = runner.about()
        connection.sendall(json.dumps(about).encode() + b"\n")

    def on_readable(self):
        part = self.connection.recv(4096)
        if not part:
            self.runner.end()
        self.line += part
        if self.line.endswith(b"\n"):
            self.runner.grace_seconds = float(json.loads(self.line)["graceSeconds"])
            self.line = b""


class Request:
    """One request of the worker's, and the answers to it.

    {"op": "run", "attempt", "layout", "temps", "argv", "cwd", "env", "network", "reads", "writes", "limits"}
        -> {"event": "ended", ...} or {"event": "failed", ...}; {"op": "kill"} ends it.
    {"op": "remove", "attempt"} -> {"event": "removed"}, or "failed": the attempt's folder.
    {"op": "environment", "key"} -> {"event": "build" or "ready", "path"}; {"op": "built"} after a build.
        The environment is in use until the connection closes.
    """

    def __init__(self, runner, connection, number):
        self.runner = runner
        self.connection = connection
        self.number = number
        self.line = b""
        self.script = None

    def on_readable(self):
        part = self.connection.recv(65536)
        self.line += part
        if not part or len(self.line) > LINE_BYTES_MAX:
            return self.runner.gone(self)
        *lines, self.line = self.line.split(b"\n")
        for line in lines:
            try:
                self.runner.asked(self, json.loads(line))
            except (OSError, ValueError, KeyError, TypeError) as error:
                self.fail(error)

    def fail(self, error):
        self.tell({"event": "failed", "ours": True, "message": "runner: %r" % error})

    def tell(self, event):
        try:
            # A line fits the socket's buffer; a worker that does not read it is not waited for.
            self.connection.sendall(json.dumps(event).encode() + b"\n")
        except OSError:
            pass
