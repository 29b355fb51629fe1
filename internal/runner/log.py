"""What the runner has to say: lines of JSON on stderr, as of all other parts. Nobody waits for a reader."""

import json
import os
import select
import sys
import time

# So much a pipe that has any room takes at once.
LINE_BYTES = select.PIPE_BUF


def warn(message):
    """Best effort: what cannot be written now, on a full disk or to a reader that stands still, is dropped."""
    time_ms = int(time.time() * 1000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_ms // 1000))
    said = {
        "level": "warn",
        "time": "%s.%03dZ" % (stamp, time_ms % 1000),
        "name": "runner",
        "pid": os.getpid(),
        "msg": str(message)[: LINE_BYTES // 12],
    }
    # In ASCII: nothing in it drives a terminal.
    line = (json.dumps(said, separators=(",", ":")) + "\n").encode()
    try:
        out = sys.stderr.fileno()
        if select.select([], [out], [], 0)[1]:
            os.write(out, line[:LINE_BYTES])
    except (OSError, ValueError, AttributeError):
        pass
