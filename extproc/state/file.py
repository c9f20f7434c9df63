"""The file of learned state: written under a temporary name and renamed, so that there is always a complete one.

A file that cannot be used is renamed and never overwritten: it may belong to another program, or be the only copy
of months of learning, written by a newer version.
"""

import logging
import os
import secrets
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from errno import EINVAL, EISDIR
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.protocol import LearnedState
from extproc.files import read_file
from extproc.state.frame import framed, unframed
from extproc.state.pb import state_pb2
from extproc.state.snapshot import from_message, to_message

__all__ = ["StateFile", "read_state", "state_in", "write_atomically"]

# The limit for a store's values, too; the largest state that the bounds of the estimator allow is 1/40 of it.
MAX_FILE_BYTES: Final = 256 << 20
MAX_ASIDE: Final = 1_000
# A save takes seconds at most. Whether a temporary file's process lives cannot be told: pods may share the volume.
LEFT_OVER_AFTER_S: Final = 7200.0  # so that a clock that is off by an hour does no harm

log = logging.getLogger("dualpool")


class StateFile:
    """The file at `path`; `save` writes only if `load` has found nothing that would be lost."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._blocked_by = ""
        # The loaded message, if it has fields that this version does not know, to write them back.
        self._found: state_pb2.LearnedState | None = None
        self._kind = ""

    def load(self, into: Callable[[LearnedState], None]) -> bool:
        """Pass the file's state to `into`, and return whether it was taken.

        A file that is not a state, or that `into` refuses with a ConfigurationError, is set aside. Nothing is
        raised: a router without learned state is better than none.
        """
        _remove_left_overs(self.path)
        try:
            _check_kind(self.path)
            data = read_file(self.path, MAX_FILE_BYTES)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._blocked_by = f"it could not be read: {error}"
            self._log_error("the state file cannot be read, and nothing will be saved", error)
            return False
        try:
            message = _parsed(data)
            if not message.estimator_kind:
                return False  # it was reset
            into(from_message(message))
        except ConfigurationError as error:
            self._set_aside(error)
            return False
        self._found = message if _has_unknown(message) else None
        self._kind = message.estimator_kind
        log.info("loaded the learned state", extra={"fields": {"path": str(self.path)}})
        return True

    def save(self, state: LearnedState) -> None:
        """Replace the file. Raises OSError if that fails; the old file is unchanged then.

        An old file of another kind of estimator is set aside: a reload may have changed the kind.
        """
        if self._kind not in ("", state.estimator_kind) and not self._blocked_by:
            self._set_aside(
                ConfigurationError(f"it was written by estimator {self._kind}, not {state.estimator_kind}")
            )
            self._found = None
        self._kind = state.estimator_kind
        if self._blocked_by:
            raise OSError(f"{self.path}: {self._blocked_by}")
        write_atomically(self.path, framed(to_message(state, self._found).SerializeToString()))

    def _set_aside(self, why: ConfigurationError) -> None:
        path = Path(os.path.realpath(self.path))  # a symbolic link stays, as when its file is replaced
        try:
            aside = _free_name(path)
            os.rename(path, aside)  # noqa: PTH104  (Path.rename's errors say less)
        except FileNotFoundError:
            pass  # already removed
        except OSError as error:
            self._blocked_by = f"it cannot be used as state, and cannot be set aside: {error}"
            self._log_error("the state file cannot be used or set aside, and nothing will be saved", why)
        else:
            self._log_error("the state file cannot be used and was set aside", why, aside=str(aside))

    def _log_error(self, what: str, why: Exception, **fields: str) -> None:
        log.error(what, extra={"fields": {"path": str(self.path), "cause": str(why), **fields}})


def read_state(path: Path) -> state_pb2.LearnedState:
    """Return the message in a file. Raises ConfigurationError, which names the file, if there is none."""
    try:
        return _parsed(read_file(path, MAX_FILE_BYTES))
    except OSError as error:
        raise ConfigurationError(str(error), source=f"state file {path}") from error
    except ConfigurationError as error:
        raise ConfigurationError(*error.sentences, source=f"state file {path}") from error


def state_in(data: bytes) -> LearnedState:
    """Return the state in a file's content. Raises ConfigurationError if it is not a state, or an empty one."""
    state = from_message(_parsed(data))
    if not state.estimator_kind:
        raise ConfigurationError("it contains no learned state")
    return state


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file atomically: whatever happens, `path` has either the complete new content or the old one."""
    if not path.name:  # "", "." and "/"
        raise IsADirectoryError(EISDIR, os.strerror(EISDIR), str(path))
    path = Path(os.path.realpath(path))  # a symbolic link stays: its target may be on another disk
    with suppress(FileNotFoundError):
        _check_kind(path)
    # Not the process's number, which is 1 in every container: of two pods that share a volume while one replaces
    # the other, each would write into the other's file, or remove it.
    aside = path.with_name(f".{path.name}.{secrets.randbits(64)}")
    try:
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename must survive a power failure, too
    finally:
        os.close(folder)


def _check_kind(path: Path) -> None:
    """Raise OSError for a device, which must not be renamed or replaced, a pipe, whose opening would wait for a
    writer, and a directory.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(EINVAL, "it is not a regular file", str(path))


def _remove_left_overs(path: Path) -> None:
    """Remove temporary files of processes that were killed while they wrote, not one that is being written."""
    path = Path(os.path.realpath(path))
    start, before_s = f".{path.name}.", time.time() - LEFT_OVER_AFTER_S
    with suppress(OSError):
        for left in path.parent.iterdir():
            ours = left.name.startswith(start) and left.name.removeprefix(start).isdecimal()
            if ours and left.lstat().st_mtime < before_s:
                left.unlink()


def _parsed(data: bytes) -> state_pb2.LearnedState:
    try:
        return state_pb2.LearnedState.FromString(unframed(data))
    except DecodeError as error:
        raise ConfigurationError(f"it is not valid protobuf: {error}") from error


def _has_unknown(message: state_pb2.LearnedState) -> bool:
    parts = [message, *message.categories, *message.models, *message.outputs]
    return any(len(UnknownFieldSet(part)) for part in parts)


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.unusable-{number}") for number in range(1, MAX_ASIDE))
    found = next((name for name in names if not name.exists()), None)
    if found is None:
        raise FileExistsError(f"{MAX_ASIDE - 1} files have already been set aside")
    return found
