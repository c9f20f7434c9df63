"""The key that seals evidence for the access log, in a file that is followed: a new key is in use within seconds.

Each process follows the file itself, workers, too, as with certificates. No reload is needed: the configuration,
which only names the file, has not changed. A file that cannot be used is logged, and never replaces a good key.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import Final

from extproc.core.errors import ConfigurationError
from extproc.files import read_followed

__all__ = ["KeyFile", "new_key", "read_key"]

KEY_BYTES: Final = 32
MAX_KEY_FILE_BYTES: Final = 64 << 10
LOOKS_EVERY_S: Final = 1.0

log = logging.getLogger("dualpool")


class KeyFile:
    """Has `renew` called once the file has had another key than the one in use for two looks in a row.

    `in_use` returns the file's name and the key in use, or None if nothing is learned from the log. `renew` may
    wait for the router's loop: `follow` has both called on a separate thread, and `report` with whether the file
    has become one that cannot be used.
    """

    def __init__(
        self,
        in_use: Callable[[], tuple[str, bytes] | None],
        renew: Callable[[], None],
        report: Callable[[bool], None],
    ) -> None:
        self._in_use = in_use
        self._renew = renew
        self._report = report
        self._pending: bytes | str = b""
        self._refused = ""

    async def follow(self) -> None:
        """Look at the file every LOOKS_EVERY_S seconds, until cancelled."""
        while True:
            await asyncio.sleep(LOOKS_EVERY_S)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Read the file; what only one look has seen may still be being written."""
        in_use = self._in_use()
        if in_use is None:
            self._report(False)  # noqa: FBT003  (a metric's value)
            return
        file, key = in_use
        found = _content(file)
        if found != self._pending:
            self._pending = found
            return
        self._report(isinstance(found, str))
        if isinstance(found, str):
            if found != self._refused:
                log.error(
                    "the access log's key has changed and cannot be used; the old one stays in use: %s", found
                )
            self._refused = found
        else:
            self._refused = ""
            if found and found != key:
                self._renew()
                log.info("the access log's key has changed and is in use")


def new_key() -> bytes:
    """Return a random key."""
    return secrets.token_bytes(KEY_BYTES)


def read_key(file: str) -> bytes:
    """Return the key in a file, or b"" if no file is named. Raises ConfigurationError for one that is no key."""
    if not file:
        return b""
    try:
        key = read_followed(file, MAX_KEY_FILE_BYTES).rstrip(b"\r\n")  # an editor's or openssl's last line end
    except OSError as error:
        raise ConfigurationError(f"learning.access_log.key_file: {error}") from error
    if len(key) < KEY_BYTES:
        raise ConfigurationError(
            f"learning.access_log.key_file: {file!r} has {len(key)} bytes; at least {KEY_BYTES} are needed"
        )
    return key


def _content(file: str) -> bytes | str:
    """Return the key in a file; if it cannot be used, the reason as text."""
    try:
        return read_key(file)
    except ConfigurationError as error:
        return str(error)
