"""A cache of search results by their inputs: the same task is simulated only once.

The key covers every field of the task, the lengths themselves, the source code of the planner and of core, and the
version of the package with measured times, so a change to any of these is a cache miss.
"""

import hashlib
import os
from contextlib import suppress
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import msgspec

import extproc.core
import extproc.planning
from extproc.planning.hardware.measured import PACKAGE
from extproc.planning.workload.lengths import Lengths

__all__ = ["ResultCache", "Task", "fingerprint"]

T = TypeVar("T")


class Task(Protocol):
    """A dataclass that holds everything that its result depends on."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def lengths(self) -> Lengths:
        """The requests; the one field that is hashed by its contents."""
        ...


class ResultCache:
    """A directory of results; with None nothing is stored. A file that cannot be read or written is a cache miss,
    not an error.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._code = _code_hash()

    def get(self, task: Task, kind: type[T]) -> T | None:
        """Return the result of an earlier search for the same task, or None."""
        if self._directory is None:
            return None
        try:
            return msgspec.msgpack.decode(self._path(self._directory, task).read_bytes(), type=kind)
        except (OSError, msgspec.DecodeError):
            return None

    def put(self, task: Task, found: object) -> None:
        """Store a result."""
        if self._directory is None:
            return
        path = self._path(self._directory, task)
        part = path.with_suffix(f".{os.getpid()}")
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            part.write_bytes(msgspec.msgpack.encode(found))
            part.replace(path)
        except OSError:
            with suppress(OSError):  # the directory itself may be at fault
                part.unlink(missing_ok=True)

    def _path(self, directory: Path, task: Task) -> Path:
        return directory / f"{fingerprint(task, self._code)}.msgpack"


def fingerprint(task: Task, code: str) -> str:
    """Return a hash of everything that a result depends on."""
    digest = hashlib.sha256(f"{code} {type(task).__name__}".encode())
    for field in fields(task):
        if field.name != "lengths":
            digest.update(f"{field.name}={getattr(task, field.name)!r};".encode())
    lengths = task.lengths
    for array in (lengths.prompt, lengths.output, lengths.arrival_s, lengths.budget, lengths.cached):
        digest.update(b"none" if array is None else array.tobytes())
    return digest.hexdigest()


def _code_hash() -> str:
    digest = hashlib.sha256()
    for package in (extproc.planning, extproc.core):
        for source in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(source.read_bytes())
    with suppress(PackageNotFoundError):
        digest.update(version(PACKAGE).encode())
    return digest.hexdigest()
