"""The values in the store: the base, and what one replica has learned itself."""

from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.length_counts import BINS
from extproc.core.estimator.protocol import LearnedState
from extproc.core.estimator.state_tables import tables_of
from extproc.core.estimator.tables import Tables
from extproc.core.estimator.terms import Terms
from extproc.state.columns import Indexes, columns_of, tables_in
from extproc.state.frame import HEAD_BYTES, framed, unframed
from extproc.state.pb import state_pb2
from extproc.state.snapshot import from_message, to_message

__all__ = ["NO_BASE", "Base", "base_in", "bytes_of", "own_in", "versioned"]


@dataclass(frozen=True, slots=True)
class Base:
    """The content of the base: its state, and the names of the replicas and imported states that it includes."""

    state: LearnedState
    folded: tuple[str, ...] = ()
    """For each replica its name, and its name with the version that it had published."""

    def version_of(self, name: str) -> bytes:
        """Return the head of what it includes of a replica; empty if a router of an earlier release folded it."""
        begin = versioned(name, b"")
        return next((bytes.fromhex(each[len(begin) :]) for each in self.folded if each.startswith(begin)), b"")


NO_BASE: Final = Base(LearnedState(""))


def versioned(name: str, blob: bytes) -> str:
    """Return the name under which a base has a version of a replica's state, which the head of its value shows."""
    return f"{name}={blob[:HEAD_BYTES].hex()}"


def base_in(data: bytes, terms: Terms) -> Base | None:
    """Return the base, or None if it cannot be used: it is not worth failing for."""
    try:
        message = state_pb2.Published.FromString(unframed(data))
        base = Base(from_message(message.state), tuple(message.folded))
        outputs = tables_of(base.state, terms).outputs  # raises for sums or numbers that no exchange could use
    except (ConfigurationError, DecodeError):
        return None
    return None if outputs.index and outputs.values.shape[1] != 2 * BINS else base


def own_in(data: bytes, indexes: Indexes) -> Tables | None:
    """Return the tables in a replica's key, or None if it cannot be read."""
    try:
        return tables_in(state_pb2.Published.FromString(unframed(data)).own, indexes)
    except (ConfigurationError, DecodeError):
        return None


def bytes_of(value: Base | Tables) -> bytes:
    """Return a base, or what one replica has learned, as a value for the store."""
    if isinstance(value, Base):
        message = state_pb2.Published(state=to_message(value.state), folded=value.folded)
    else:
        message = state_pb2.Published(own=columns_of(value))
    return framed(message.SerializeToString())
