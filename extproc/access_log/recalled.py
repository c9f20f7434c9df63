"""Serialisation of what is known about the beginning of a conversation, which stays in the process that knows it.

Only its key is sent (see payload.py); another process is told no more than whether the beginning was known.
"""

from typing import Final

import msgspec
import numpy as np

from extproc.core.estimator.prefixes import Known, Recalled

__all__ = ["PackedRecalled", "packed_recalled", "recalled_from"]

# Identifies the process: Python's hash of bytes is keyed randomly when the process starts, and the keys of
# conversations are such hashes.
_ORIGIN: Final = hash(b"dualpool") & 0xFFFFFFFF
_NOTHING: Final = np.empty(0, np.float32)
_KNOWN_ELSEWHERE: Final = Known(0, 0, 0, _NOTHING)


class PackedRecalled(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`Recalled`; `origin` identifies the process, since each process has different keys."""

    origin: int
    key: int
    messages: int
    messages_bytes: int
    known_key: int
    known_tokens: int


def packed_recalled(recalled: Recalled | None) -> PackedRecalled | None:
    """Return the keys of a conversation, and how many tokens of it are known."""
    if recalled is None:
        return None
    known_tokens = 0 if recalled.known is None else recalled.known.tokens
    return PackedRecalled(
        _ORIGIN, recalled.key, recalled.messages, recalled.messages_bytes, recalled.known_key, known_tokens
    )


def recalled_from(said: PackedRecalled | None, *, continued: bool) -> Recalled | None:
    """Return the keys of a conversation; if another process packed them, only whether its beginning was known."""
    if said is None or said.origin != _ORIGIN:
        return Recalled(0, 0, 0, _KNOWN_ELSEWHERE) if continued else None
    known = Known(said.known_tokens, 0, 0, _NOTHING) if continued else None
    return Recalled(said.key, said.messages, said.messages_bytes, known, said.known_key)
