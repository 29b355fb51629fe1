#!/usr/bin/env python3
"""The user's side of the system: data and scripts in, jobs through the proxy, results out.

Data goes straight to and from Blob Storage, which AZURE_STORAGE_CONNECTION_STRING names.
Exit codes: 0 success, 1 failure, 2 wrong usage or setting, 3 job cancelled, 130 interrupted.
"""
import argparse
import json
import os
import re
import signal
import sys
import time
from contextlib import contextmanager, nullcontext, suppress
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

CONNECTION = "AZURE_STORAGE_CONNECTION_STRING"
SOURCES = (  # option, its default, the container it goes to
    ("small", "data/small", "dfs-source-small"),
    ("large", "data/large", "dfs-source-large"),
    ("scripts", "py_scripts", "dfs-scripts"),
)
RESULTS = ("dfs-dest", "dfs-intermediate")
EXIT_CODES = {"succeeded": 0, "failed": 1, "cancelled": 3}
SILENCE_S = 60  # The proxy says something every 15 s: a stream as silent as this is broken.
POLL_S = 1
PATIENCE_S = 120
LOCATION = re.compile(r"(?!.*/\.\.?(?:/|$))([a-z0-9-]{3,63})(?:/(.*))?")  # No . or .. in it.
PART = re.compile(r"part-\d{5}(\.gz|\.zst)?")
# What the system refuses in a blob's name; surrogates stand for bytes that are not UTF-8.
BAD_NAME = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]|\.$")
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
BROKEN = (OSError, HTTPException, ValueError)


class UsageError(Exception):
    """The user asked for what cannot be, or a setting is wrong."""
    code = 2


class Failure(Exception):
    """What was asked for failed."""
    code = 1


def say(text, end="\n"):
    """Scripts and servers wrote some of what is said: nothing in it may drive the terminal."""
    clear = "\r\033[K" if sys.stderr.isatty() else ""
    print(clear + CONTROL.sub("\ufffd", text), end=end, file=sys.stderr, flush=True)


def progress(text):
    """A line that the next one takes the place of, for people who watch."""
    if sys.stderr.isatty():
        say(text[:(os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1], end="")


@contextmanager
def storage():
    """The Blob service. The SDK's messages may quote a key or a signed URL: none is passed on."""
    try:
        # Imported only here, so that whatever needs no storage works without it.
        from azure.core.exceptions import AzureError
        from azure.storage.blob import BlobServiceClient
        # With its default waits the SDK takes minutes to tell of a mistyped address.
        service = BlobServiceClient.from_connection_string(
            os.environ[CONNECTION], initial_backoff=1, increment_base=2)
    except ImportError:
        raise UsageError("azure-storage-blob is missing: pip install azure-storage-blob "
                         "(on Debian: apt-get install python3-azure-storage)") from None
    except KeyError:
        raise UsageError(f"{CONNECTION} is not set") from None
    except ValueError:
        raise UsageError(f"{CONNECTION} is not a valid connection string") from None
    try:
        yield service
    except AzureError as error:
        code = getattr(error, "error_code", None)
        reason = getattr(code, "value", code) or type(error).__name__
        hint = "run setup first" if code == "ContainerNotFound" else f"is {CONNECTION} right?"
        raise Failure(f"storage: {reason}; {hint}") from None


def setup(_args):
    with storage() as service:
        for name in (*(container for _, _, container in SOURCES), *RESULTS):
            container = service.get_container_client(name)
            if not (there := container.exists()):
                container.create_container()
            say(f"{name}: {'is there already' if there else 'created'}")


def reset(args):
    with storage() as service:
        if not args.yes and sys.stdin.isatty():
            say(f"Delete all of {' and '.join(RESULTS)}? Running jobs fail. [y/N]", end=" ")
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                raise Failure("nothing was deleted")
        for container in map(service.get_container_client, RESULTS):
            deleted, blobs = 0, container.list_blobs() if container.exists() else ()
            for deleted, blob in enumerate(blobs, 1):
                container.delete_blob(blob.name, delete_snapshots="include")
                progress(f"{container.container_name}: {deleted} blobs deleted")
            say(f"{container.container_name}: {deleted} blobs deleted")


def upload(args):
    """Looks at all the folders first: a slip in one should not show half-way through."""
    found = []
    for option, default, container in SOURCES:
        folder = getattr(args, option) or Path(default)
        if getattr(args, option) or folder.is_dir():
            found.append((folder, container, files_below(folder)))
        else:
            say(f"{folder}: no such folder; skipped")
    with storage() as service:
        for folder, container, files in found:
            for number, (path, name) in enumerate(files, 1):
                place = f"{container} {number}/{len(files)}: {path}"
                with open(path, "rb") as file:
                    service.get_blob_client(container, name).upload_blob(
                        file, overwrite=True,
                        progress_hook=lambda sent, _: progress(f"{place}, {sent:,} bytes"))
            say(f"{container}: {len(files)} files from {folder}")


def files_below(folder):
    """Path and blob name of each file: the name is the path below the folder, with slashes."""
    def refuse(error):
        raise UsageError(f"{error.filename}: {error.strerror}")

    paths = sorted(Path(base, name) for base, _, names in os.walk(folder, onerror=refuse)
                   for name in names)
    files = [(path, path.relative_to(folder).as_posix()) for path in paths]
    for path, name in files:
        if not path.is_file() or BAD_NAME.search(name):
            raise UsageError(f"{path}: not a plain file with a plain name")
    return files


def result(args):
    location = f"dfs-dest/{args.job}"
    with storage() as service:
        try:
            for job in jobs(args.server, f"/jobs/{quote(args.job, safe='')}"):
                location = job.get("output")
        except Failure as failure:
            say(f"{failure}; looking in {location}")
        deliver(service, location, args.output, to_stdout=args.output is None)


def deliver(service, location, folder, to_stdout):
    parts = parts_of(service, location)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        for name, blob in parts:
            progress(f"downloading {name} of {len(parts)} parts")
            partial = folder / f"{name}.partial"  # A part has its name once it is whole.
            with open(partial, "wb") as file:
                blob.download_blob().readinto(file)
            partial.replace(folder / name)
        say(f"{len(parts)} parts in {folder}")
    if to_stdout:
        for _, blob in parts:
            blob.download_blob().readinto(sys.stdout.buffer)
        sys.stdout.flush()


def parts_of(service, location):
    """The result's parts, in order. Only what is named like a part can become a file here."""
    match = LOCATION.fullmatch(str(location))
    if match is None:
        raise Failure(f"{location} is no place of a result")
    folder = f"{match[2].rstrip('/')}/" if match[2] else ""
    container = service.get_container_client(match[1])
    if not container.get_blob_client(f"{folder}_SUCCESS").exists():
        raise Failure(f"no result in {location}: its _SUCCESS, which a job writes last, is missing")
    blobs = container.list_blobs(name_starts_with=f"{folder}part-")
    names = [blob.name.removeprefix(folder) for blob in blobs]
    return [(name, container.get_blob_client(folder + name))
            for name in names if PART.fullmatch(name)]


def run(args):
    wanted = args.print or args.output is not None
    if wanted and args.phase == "map":
        raise UsageError("a map phase has no result to print or download")
    fields = ("mapper", "reducer", "combiner", "partitioner", "data", "m_num", "r_num",
              "phase", "name")
    request = {name: getattr(args, name) for name in fields if getattr(args, name) is not None}
    # Storage comes first: a missing setting should not show only after a long job.
    with storage() if wanted else nullcontext() as service:
        job = follow(args.server, request)
        say(end_of(job))
        if wanted and job["state"] == "succeeded":
            deliver(service, job.get("output"), args.output, to_stdout=args.print)
    return EXIT_CODES[job["state"]]


def follow(server, request):
    """Runs a job to its end: one living line on a terminal, else a line per change of state."""
    job, state = None, None
    try:
        for job in submit(server, request):
            tasks = {phase: job.get(phase, {}) for phase in ("map", "reduce")}
            counts = (f"{phase} {n.get('done')}/{n.get('total')}" for phase, n in tasks.items())
            show = progress if sys.stderr.isatty() or job["state"] == state else say
            show(f"{job['id']} {job['state']:<10} {'  '.join(counts)}")
            state = job["state"]
    except KeyboardInterrupt:
        name = f"job {job['id']}" if job else "a job that was submitted"
        raise KeyboardInterrupt(f"{name} goes on; see {server}/jobs") from None
    return job


def end_of(job):
    text, error = f"job {job['id']} {job['state']}", job.get("error")
    if not error:
        return f"{text}; output: {job.get('output')}"
    where = f" in {error['task']}" if error.get("task") else ""
    tail = error.get("log_tail", "")
    return f"{text}{where} ({error.get('class')}): {error.get('message')}\n{tail}".rstrip()


def submit(server, request):
    """Yields the job at every change to its final state, also when the stream breaks."""
    job = None
    for job in jobs(server, "/request", request):
        yield job
    if job is None:
        raise Failure(f"{server} named no job; {server}/jobs shows whether one was made")
    heard = time.monotonic()
    while job["state"] not in EXIT_CODES:
        time.sleep(POLL_S)
        with suppress(Failure):
            for job in jobs(server, f"/jobs/{quote(job['id'], safe='')}"):
                heard = time.monotonic()
                yield job
        if time.monotonic() - heard > PATIENCE_S:
            raise Failure(f"{server} told nothing of job {job['id']} for {PATIENCE_S} s")


def jobs(server, path, body=None):
    """Yields the job of each line of the answer; one that breaks off just ends early."""
    data = body and json.dumps(body).encode()
    try:
        request = Request(server + path, data, {"Content-Type": "application/json"})
        if token := os.environ.get("MR_TOKEN"):  # For this server, not for one it points to.
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        response = urlopen(request, timeout=SILENCE_S)
    except HTTPError as error:
        raise refusal(error) from None
    except BROKEN as error:
        reason = getattr(error, "reason", error)
        raise Failure(f"{server} does not answer ({reason}); is the proxy running?") from None
    with response, suppress(*BROKEN):
        for line in response:
            job = json.loads(line)
            if not isinstance(job, dict) or not {"id", "state"} <= job.keys():
                return
            yield job


def refusal(error):
    """A problem document (RFC 9457) as a failure that names every offending field."""
    try:
        problem = json.loads(error.read())
        fields = (f"\n  {item['field']}: {item['message']}" for item in problem.get("errors", ()))
        return Failure(problem["detail"] + "".join(fields))
    except (*BROKEN, LookupError, TypeError, AttributeError):
        return Failure(f"the server answered {error.code} {error.reason}")


def server_url(text):
    if re.match(r"https?://[^/\s]", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an http or https URL")
    return text.rstrip("/")


def new_folder(text):
    """Parts of two results in one folder could not be told apart."""
    folder = Path(text)
    if folder.is_file() or any(folder.glob("part-*")):
        raise argparse.ArgumentTypeError(f"{text} is a file, or holds parts already")
    return folder


class Parser(argparse.ArgumentParser):
    def error(self, message):
        """One line: the whole usage would bury the message."""
        self.exit(UsageError.code, f"{self.prog}: {message} (--help tells more)\n")


def parse(argv):
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(function, summary):
        sub = commands.add_parser(function.__name__, help=summary, description=summary)
        sub.set_defaults(run=function)
        return sub.add_argument

    command(setup, "Creates the containers; those that are there stay as they are.")
    add = command(reset, "Deletes results: every blob of dfs-dest and dfs-intermediate.")
    add("--yes", action="store_true", help="do not ask (without a terminal nothing is asked)")
    add = command(upload, "Uploads data and scripts, folders with all that is in them.")
    for option, default, container in SOURCES:
        add(f"--{option}", type=Path, metavar="DIR", help=f"to {container} (default {default})")
    server = {"metavar": "URL", "help": "the proxy (default: $MR_SERVER or %(default)s)",
              "default": os.environ.get("MR_SERVER") or "http://127.0.0.1:8080",
              "type": server_url}
    add = command(run, "Runs a job and waits for its end; the exit code tells how it ended.")
    add("--mapper", required=True, metavar="SCRIPT", help="a blob of dfs-scripts")
    add("--reducer", metavar="SCRIPT", help="a blob of dfs-scripts; not for a map phase")
    add("--combiner", metavar="SCRIPT", help="a blob of dfs-scripts, or sum, min, max, distinct")
    add("--partitioner", metavar="NAME", help="hash, KeyFieldBasedPartitioner or range")
    add("--data", required=True, metavar="LOCATION", help="the input: container[/prefix]")
    add("--m-num", type=int, metavar="N", help="map tasks (default: by the input's size)")
    add("--r-num", type=int, metavar="N", help="reduce tasks, and parts of the result")
    add("--phase", choices=("map", "reduce"), help="only this phase")
    add("--name", help="a name for people")
    add("--output", type=new_folder, metavar="DIR", help="download the parts to this folder")
    add("--print", action="store_true", help="print the result")
    add("--server", **server)
    add = command(result, "Prints the result of a job, or downloads its parts.")
    add("job", metavar="JOB_ID", help="as run tells it")
    add("--output", type=new_folder, metavar="DIR", help="download to this folder; do not print")
    add("--server", **server)
    return parser.parse_args(argv)


def main(argv):
    args = parse(argv)
    try:
        return args.run(args) or 0
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; the flush at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UsageError, Failure, OSError) as error:
        say(str(error))
        return getattr(error, "code", 1)
    except KeyboardInterrupt as interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        say(str(interrupt) or "interrupted")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
