"""Reloading of the configuration file: changes are soon in force, and a bad file never replaces a good one.

A separate thread reads the file periodically and compares the content. Rejected: timestamps and inotify. A
Kubernetes ConfigMap swaps a symbolic link in the path, editors rename or write in place, and each of these needs
its own rule; the file is so small that reading it costs less.

A file that is still being written may already be valid. So content is used only if two reads in a row return it;
on SIGHUP it is used at once. An empty file would mean all defaults, and is what a full disk leaves when a file is
rewritten: it never replaces a file that had content.

What a valid file names may not be there yet: Kubernetes updates a Secret and a ConfigMap at different times. So a
configuration that could not be applied is tried again, without a change of the file.
"""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from extproc.config.loading import MAX_CONFIGURATION_BYTES, decode
from extproc.config.reloading import in_force
from extproc.config.schema import Configuration
from extproc.core.errors import ConfigurationError
from extproc.files import read_file
from extproc.telemetry.reloads import ReloadMetrics, ReloadOutcome

__all__ = ["Reloader"]

LOOKS_EVERY_S: Final = 0.5
# How many looks later a configuration is tried again that a busy router did not take, or that was refused for what
# other files hold: to try it may mean to read tokenizers, for seconds.
BUSY_LOOKS, REFUSED_LOOKS = 2, 120
_READ_NOW, _STOP = True, False

log = logging.getLogger("dualpool")


class Reloader:
    """Follows a file (None: there is none) from `start` to `stop`; not a pipe, which can be read only once.

    `apply` is called, on the thread that reads the file, with each configuration to put in force. If it raises
    ConfigurationError or TimeoutError, the file is reported as refused, the previous configuration stays, and the
    file's is tried again later.
    """

    def __init__(
        self,
        file: Path | None,
        running: Configuration,
        apply: Callable[[Configuration], None],
        metrics: ReloadMetrics,
    ) -> None:
        self.running = running
        self._file = None if file is not None and file.is_fifo() else file
        self._wanted = running
        self._apply = apply
        self._metrics = metrics
        self._pending: bytes | str | None = None
        self._taken: bytes | str | None = None
        self._looks_left = 0  # until what was taken is tried again; 0: it is not
        self._since = _now()
        self._waiting: tuple[str, ...] = ()
        self._refused: dict[str, object] | None = None
        self._orders: SimpleQueue[bool] = SimpleQueue()
        self._thread = threading.Thread(target=self._follow, name="dualpool-reloader", daemon=True)

    def start(self) -> None:
        """Start following the file."""
        self._thread.start()

    def stop(self) -> None:
        """Have it stop following the file, after a reload that is in progress."""
        self._orders.put(_STOP)

    @property
    def stopped(self) -> bool:
        """Whether it has stopped, so that nothing else is put in force."""
        return not self._thread.is_alive()

    def ask(self) -> None:
        """Have the file read at once; may be called from a signal handler."""
        self._orders.put(_READ_NOW)

    def report(self) -> dict[str, object]:
        """Return what /config shows in addition to the settings in force."""
        return {
            "file": None if self._file is None else str(self._file),
            "in_force_since": self._since,
            "needs_restart": self._waiting,
            "refused": self._refused,
        }

    def look(self, *, at_once: bool = False) -> None:
        """Read the file; use new content as soon as two reads in a row agree on it, or at once if `at_once`."""
        if self._file is None:
            if at_once:
                log.warning(
                    "there is no configuration file to reload: the router was started without one, or with a pipe"
                )
            return
        found = _content(self._file)
        if found == self._taken and not at_once:
            self._pending = None
            if self._looks_left:
                self._looks_left -= 1
                if not self._looks_left:
                    self._take(found, self._file, again=True)
        elif found != self._pending and not at_once:
            self._pending = found
        else:
            self._pending, self._taken = None, found
            self._take(found, self._file, requested=at_once)

    def _follow(self) -> None:
        while True:
            try:
                order = self._orders.get(timeout=LOOKS_EVERY_S if self._file else None)
            except Empty:
                order = None
            if order is _STOP:
                return
            try:
                self.look(at_once=order is _READ_NOW)
            except Exception:  # the next look may succeed
                log.exception("exception while reloading the configuration file")

    def _take(self, found: bytes | str, file: Path, *, requested: bool = False, again: bool = False) -> None:
        source, looks = f"configuration file {file}", 0
        self._looks_left = 0
        if not found.strip() and self._wanted != Configuration():
            found = "it is empty"
        if isinstance(found, str):
            self._refuse(ConfigurationError(found, source=source))
            return
        try:
            wanted = decode(found, file)
            looks = REFUSED_LOOKS  # another fault than the file's own may pass without a change of it
            if wanted == self._wanted and self._refused is None:
                if requested:
                    log.info("the configuration file has not changed")
                return
            configuration, waiting = in_force(self.running, wanted)
            if configuration != self.running:
                self._apply(configuration)
        except ConfigurationError as error:
            self._try_again(error, looks, again=again)
        except TimeoutError:
            busy = ConfigurationError("the router is too busy to apply it", source=source)
            self._try_again(busy, BUSY_LOOKS, again=again)
        except Exception as error:  # noqa: BLE001  (it is logged)
            # Memory or threads may have run out, which the file has nothing to do with.
            why = f"exception in the router: {str(error) or type(error).__name__}"
            looks = REFUSED_LOOKS if again else BUSY_LOOKS  # one that remains must not keep the processor busy
            self._try_again(ConfigurationError(why, source=source), looks, again=again, met=error)
        else:
            self._accept(configuration, wanted, waiting)

    def _accept(self, configuration: Configuration, wanted: Configuration, waiting: tuple[str, ...]) -> None:
        self.running, self._wanted = configuration, wanted
        self._since, self._waiting, self._refused = _now(), waiting, None
        self._metrics.reloaded(ReloadOutcome.APPLIED, in_force=not waiting)
        log.info(
            "the configuration file has changed and is in force", extra={"fields": {"needs_restart": waiting}}
        )
        if waiting:
            log.warning("changed settings that need a restart: %s", ", ".join(waiting))

    def _try_again(
        self, error: ConfigurationError, looks: int, *, again: bool, met: Exception | None = None
    ) -> None:
        """Have the configuration tried again so many looks later; then only another fault is reported."""
        self._looks_left = looks
        if not again or self._refused is None or self._refused["errors"] != error.lines():
            self._refuse(error, met)

    def _refuse(self, error: ConfigurationError, met: Exception | None = None) -> None:
        lines = error.lines()
        self._refused = {"at": _now(), "errors": lines}
        self._metrics.reloaded(ReloadOutcome.REFUSED, in_force=False)
        log.error(
            "the configuration file has changed and cannot be used; the previous one stays in force: %s",
            error,
            exc_info=met,
            extra={"fields": {"errors": lines}},
        )


def _content(file: Path) -> bytes | str:
    """Return the content of a file; if it cannot be read, the reason as text."""
    try:
        if file.is_fifo():  # opening it would wait for a writer, and no later file would be read
            return "it is a pipe now, which is not followed"
        return read_file(file, MAX_CONFIGURATION_BYTES)
    except OSError as error:
        return str(error)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
