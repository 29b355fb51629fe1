#!/bin/bash
# A worker and its runner in one container that starts as root, for where a pod's two containers cannot be had
# (compose.yaml): each as a user of its own, so that scripts have no way to what is the worker's. Neither has any
# capability; when one ends, so does the container.
set -u
runner=${MR_RUNNER:-@mr-runner}
# In the background only: it becomes the program.
as() {
  exec setpriv --reuid "$1" --regid "$1" --clear-groups --inh-caps=-all --no-new-privs -- "${@:2}"
}

as 10002 env -i PATH="$PATH" LANG=C.UTF-8 \
  python3 -I -S -B -X utf8 /app/internal/runner --listen "$runner" --folder /cell --closed &
MR_RUNNER=$runner MR_LAYOUT_DIR=/layouts as 10001 node /app/cmd/worker/main.ts &
worker=$!
# The runner goes when the worker does.
trap 'kill -TERM "$worker" 2>/dev/null' TERM INT
wait -n
status=$?
kill -TERM "$worker" 2>/dev/null
wait "$worker" 2>/dev/null
exit "$status"
