"""Protobuf messages and parts of them, with the places in the files where they were written."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from extproc.gateways.parsing.sources import Place
from extproc.gateways.parsing.typed import Places

__all__ = ["Part", "enum_name", "milliseconds"]

M = TypeVar("M", bound=Message)
N = TypeVar("N", bound=Message)


@dataclass(frozen=True, slots=True)
class Part(Generic[M]):
    """A message, and its path in the document that it was read from."""

    message: M
    places: Places
    path: tuple[str | int, ...] = ()

    @property
    def place(self) -> Place:
        """Where the message was written, or the place of its nearest parent if it was not."""
        return self.places.of(self.path)

    def place_of(self, *fields: str) -> Place:
        """Return where a field was written, or the place of its nearest parent if it was not."""
        return self.places.of((*self.path, *fields))

    def field(self, name: str) -> "Part[Any]":
        """Return a message field, an empty message if it is not set."""
        return Part(getattr(self.message, name), self.places, (*self.path, name))

    def items(self, name: str) -> "Iterator[Part[Any]]":
        """Yield the messages of a repeated field."""
        for at, item in enumerate(getattr(self.message, name)):
            yield Part(item, self.places, (*self.path, name, at))

    def entries(self, name: str) -> "Iterator[tuple[str, Part[Any]]]":
        """Yield the keys and messages of a map field."""
        values: Mapping[str, Message] = getattr(self.message, name)
        for key, item in values.items():
            yield key, Part(item, self.places, (*self.path, name, key))

    def unpacked(self, kind: type[N]) -> "Part[N] | None":
        """Return the message packed in this Any, None if it is of another type."""
        held = self.message
        assert isinstance(held, AnyMessage)
        if held.TypeName() != kind.DESCRIPTOR.full_name:
            return None
        message = kind()
        held.Unpack(message)
        return Part(message, self.places, self.path)

    def number(self, name: str, otherwise: int) -> int:
        """Return the number in a wrapper field, or `otherwise` (Envoy's default) if it is not set."""
        return int(getattr(self.message, name).value) if self.message.HasField(name) else otherwise


def enum_name(enum: Any, value: int) -> str:  # noqa: ANN401  (the messages' enums have no type)
    """Return the name of an enum value, the number itself if it is unknown."""
    return str(enum.Name(value)) if value in enum.values() else str(value)


def milliseconds(part: Part[Any], name: str, otherwise: float) -> float:
    """Return a duration field in milliseconds, or `otherwise` (Envoy's default) if it is not set."""
    if not part.message.HasField(name):
        return otherwise
    duration: Duration = getattr(part.message, name)
    return duration.seconds * 1000 + duration.nanos / 1e6
