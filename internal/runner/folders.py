"""Folders of scripts: laid out before, removed after, and never trusted."""

import os
import shutil

# What holds no more than this is removed while others wait: a process of its own takes longer to start.
LITTLE_ENTRIES = 32
LITTLE_BYTES = 1_048_576
BLOCK_BYTES = 512


def lay_out(layout, attempt, temps):
    """A new folder for the script, with what was laid out for it: moved, or copied where that is
    another's, or elsewhere. What an earlier run has left behind is gone.
    """
    remove(attempt)
    os.makedirs(attempt)
    work = os.path.join(attempt, "work")
    try:
        os.rename(layout, work)
    except OSError:
        # The script may write to all of it, so it has to be its own.
        shutil.copytree(layout, work, symlinks=True, copy_function=shutil.copy)
    for name in temps:
        os.mkdir(os.path.join(attempt, name))


def remove(path):
    """With all that is in it, whatever its owner has done to keep it."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except (OSError, RecursionError):
        command = 'chmod -R u+rwX -- "$1" 2>/dev/null; exec rm -rf -- "$1"'
        if os.spawnv(os.P_WAIT, "/bin/sh", ["sh", "-c", command, "sh", path]) != 0:
            raise OSError("%s cannot be removed" % path)


def removed_at_once(path):
    """Whether all of it is gone now: only if that is little work."""
    try:
        if not is_little(path):
            return False
        shutil.rmtree(path)
        return True
    except OSError:
        return False


def is_little(path):
    entries = 0
    folders = [path]
    while folders:
        with os.scandir(folders.pop()) as found:
            for entry in found:
                entries += 1
                if entries > LITTLE_ENTRIES:
                    return False
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.stat(follow_symlinks=False).st_blocks * BLOCK_BYTES > LITTLE_BYTES:
                    return False
    return True
