"""Python environments by what they hold, made once each and used by many.

    FOLDER/KEY-N    an environment, where it was built and stays

One process keeps them, so there is nothing to lock and nothing to mend: what a life before has left is
removed at the start.
"""

import os
import re

KEPT_MAX = 10
KEY = re.compile(r"[0-9a-f]{1,128}\Z")


class Environment:
    """States: nobody's; building (one user); ready (any number of users). `waiting` ask for it."""

    def __init__(self, path):
        self.path = path
        self.ready = False
        self.users = set()
        self.waiting = []


class Environments:
    def __init__(self, folder, dispose):
        """@param dispose: removes a folder, in its own time."""
        self.folder = folder
        self._dispose = dispose
        # The longest unused first.
        self._by_key = {}
        self._builds = 0

    def ask(self, user, key):
        """Tells the user, now or later, of a ready environment, or to build it. It is the user's until `leave`."""
        if KEY.match(key) is None:
            raise ValueError("not a key: %s" % key)
        found = self._by_key.pop(key, None)
        if found is not None and found.ready and not os.path.isdir(found.path):
            # Somebody has removed it.
            found = None
        if found is None:
            found = self._new(key)
        self._by_key[key] = found
        if found.ready:
            return self._give(found, user, "ready")
        found.waiting.append(user)
        if not found.users:
            self._build_next(key, found)

    def built(self, user):
        """The user has built what it was told to."""
        for environment in self._by_key.values():
            if user in environment.users and not environment.ready:
                environment.ready = True
                for waiting in environment.waiting:
                    self._give(environment, waiting, "ready")
                environment.waiting = []
        self._remove_unused()

    def leave(self, user):
        """The user has gone. What it had begun to build goes too; whoever waits builds anew."""
        for key, environment in list(self._by_key.items()):
            if user in environment.waiting:
                environment.waiting.remove(user)
            if user not in environment.users:
                continue
            environment.users.discard(user)
            if environment.ready:
                continue
            fresh = self._new(key)
            fresh.waiting = environment.waiting
            self._by_key[key] = fresh
            self._build_next(key, fresh)
            self._dispose(environment.path)
        self._remove_unused()

    def _build_next(self, key, environment):
        """By the first who waits and can: a folder that cannot be made is told to who should have built in it."""
        while environment.waiting:
            user = environment.waiting.pop(0)
            try:
                return self._give(environment, user, "build")
            except OSError as error:
                user.fail(error)
        del self._by_key[key]

    def _new(self, key):
        self._builds += 1
        return Environment(os.path.join(self.folder, "%s-%d" % (key, self._builds)))

    def _give(self, environment, user, event):
        if event == "build":
            # A script of the same user may have closed it to us.
            os.makedirs(self.folder, exist_ok=True)
            os.chmod(self.folder, 0o755)
            os.mkdir(environment.path)
        environment.users.add(user)
        user.tell({"event": event, "path": environment.path})

    def _remove_unused(self):
        unused = [key for key, each in self._by_key.items() if each.ready and not each.users]
        for key in unused[: max(0, len(self._by_key) - KEPT_MAX)]:
            self._dispose(self._by_key.pop(key).path)
