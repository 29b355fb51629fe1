"""Runs a script under bash and reports, on descriptor 3, what it and all it started took."""
import json
import os
import resource
import subprocess
import sys
import time

start = time.monotonic()
code = subprocess.call(["bash", "-eo", "pipefail", "-c", sys.argv[1]], stdout=sys.stderr)
wall = time.monotonic() - start
used = resource.getrusage(resource.RUSAGE_CHILDREN)
report = {
    "code": code,
    "wallMs": wall * 1000,
    "cpuMs": (used.ru_utime + used.ru_stime) * 1000,
    "peakBytes": used.ru_maxrss * 1024,
}
os.write(3, json.dumps(report).encode())
