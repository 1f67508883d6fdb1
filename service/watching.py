"""CURRENT of every index is watched, so that what is activated anywhere is served here."""

import logging
import threading
from typing import Final

from service.registry import Registry
from service.succession import Succession

_log: Final = logging.getLogger(__name__)


class Watcher:
    """The thread that looks at CURRENT of every index.

    Args:
        registry: says what is served, and where.
        succession: acts on what has changed.
        poll_s: seconds between looks.
    """

    def __init__(self, registry: Registry, succession: Succession, poll_s: float) -> None:
        self._registry = registry
        self._succession = succession
        self._poll_s = poll_s
        self._unreadable: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def start(self) -> None:
        """Load what is live, then watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop to watch; what is loaded stays."""
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
            except OSError as error:
                _log.error("the root cannot be read: %s", error.strerror)
            except Exception:
                _log.exception("the look at the indexes failed")
            self._registry.looked = True
            self._stop.wait(self._poll_s)

    def _look(self) -> None:
        """At every index once."""
        names = {*self._registry.served, *(folder.name for folder in self._registry.root.iterdir())}
        self._unreadable &= names
        # The default first: where there is not a place for all, it is the likeliest to be asked for.
        for name in sorted(names, key=lambda name: (name != self._registry.default, name)):
            if self._stop.is_set():
                return
            self._look_at(name)

    def _look_at(self, name: str) -> None:
        try:
            self._succession.look_at(name)
        except OSError as error:
            if name not in self._unreadable:
                _log.error("%s under the root is passed over: %s", name, error.strerror)
            self._unreadable.add(name)
        else:
            self._unreadable.discard(name)
