"""The messages of the installed Envoy, read from its program, which holds a description of each of its files."""

import mmap
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.internal.decoder import _DecodeVarint  # type: ignore[attr-defined]

__all__ = ["enums_of", "messages_of"]

# The first field of a FileDescriptorProto, its name, and the tag of the second one, its package.
_START = re.compile(rb"\n([\x08-\x7f])((?:envoy|xds|udpa)/[a-z0-9_/.]+\.proto)\x12")
_LONGEST = 1 << 20
_LAST = 14
_SYNTAX = 12


def messages_of(program: Path) -> dict[str, Any]:
    """Return the descriptions of all messages by their full names."""
    return {
        name: each
        for described in _files(program)
        for name, each in _named(described.package, described.message_type)
    }


def enums_of(program: Path) -> dict[str, Any]:
    """Return the descriptions of all enums by their full names."""
    holders = [(each.package, each) for each in _files(program)] + [*messages_of(program).items()]
    return {f"{name}.{each.name}": each for name, holder in holders for each in holder.enum_type}


def _files(program: Path) -> Iterator[FileDescriptorProto]:
    with program.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for start in _START.finditer(data):
            if start[1][0] == len(start[2]):
                yield FileDescriptorProto.FromString(_message(data[start.start() : start.start() + _LONGEST]))


def _named(package: str, messages: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    for each in messages:
        name = f"{package}.{each.name}"
        yield name, each
        yield from _named(name, each.nested_type)


def _message(data: bytes) -> bytes:
    """Return the message that these bytes begin with, up to the first byte that cannot belong to it."""
    end = 0
    while end < len(data):
        tag, at = _DecodeVarint(data, end)
        number, kind = tag >> 3, tag & 7
        if kind != 2 or not 1 <= number <= _LAST or (number == 1 and end > 0):
            break
        length, at = _DecodeVarint(data, at)
        end = at + length
        if number == _SYNTAX:
            break
    return data[:end]
