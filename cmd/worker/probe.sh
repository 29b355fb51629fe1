#!/bin/sh
# Tells a kubelet of the worker in this container: `probe.sh alive` or `probe.sh ready`; with a number
# of seconds, it waits so long for it. A worker has no port. It touches these files (health_files.ts)
# as long as it is so.
file=${MR_HEALTH_DIR:?}/${1:?alive or ready}
seconds=${2:-0}
until [ -n "$(find "$file" -newermt '15 seconds ago' 2>/dev/null)" ]; do
  [ "$seconds" -gt 0 ] || exit 1
  sleep 1
  seconds=$((seconds - 1))
done
