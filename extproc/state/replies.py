"""What the store replies to single commands, and how it refuses them.

The client takes replies as they are: what is behind the address may be a proxy, or no store at all. A reply of
another kind than the command's is an InvalidResponse, and so are the exceptions that the client has for it.
"""

from typing import Any, Final, TypeVar

import redis.asyncio as redis
from redis.exceptions import InvalidResponse, ResponseError

__all__ = ["commit", "members_of", "milliseconds_in", "part_in", "parts_of", "value_of"]

CLIENTS_WORDS: Final = "of pipeline caused error: "
FOREIGN: Final = b"?"  # the head of a value that is not a string, such as another program's list or hash
INTEGER_BITS: Final = 64  # https://redis.io/docs/latest/develop/reference/protocol-spec/#integers

T = TypeVar("T")


async def members_of(client: redis.Redis, key: str) -> list[str]:
    """Return the members of a set, as text."""
    found = _of_kind(set, await _reply_to(client.smembers(key)))
    return [_of_kind(bytes, each).decode(errors="replace") for each in found]


async def value_of(pipe: redis.Redis, key: str) -> bytes | None:
    """Return a key's value, FOREIGN if that is not a string, None if there is no key."""
    try:
        value = await _reply_to(pipe.get(key))
    except ResponseError as error:
        return part_in(error)
    return None if value is None else part_in(value)


async def parts_of(pipe: Any) -> list[Any]:  # noqa: ANN401  (a pipeline of the client)
    """Execute commands together; return the reply to each, or the error that it got."""
    return _of_kind(list, await _reply_to(pipe.execute(raise_on_error=False)))


def part_in(reply: object) -> bytes:
    """Return a part of a key's value, or FOREIGN if that is not a string. Raises any other error."""
    if isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE"):
        return FOREIGN
    return _of_kind(bytes, reply)


def milliseconds_in(reply: object) -> int:
    """Return a time to live. Raises the error, if it is one."""
    left_ms = _of_kind(int, reply)
    if left_ms.bit_length() >= INTEGER_BITS:
        raise InvalidResponse("a number of more than 64 bits")  # with enough digits it would be no float, either
    return left_ms


async def commit(pipe: Any) -> None:  # noqa: ANN401  (a pipeline of the client)
    """Execute a transaction. What it raises has the store's own words, without the client's copy of the command: a
    part of the state, which is binary and begins with names of models.
    """
    try:
        await _reply_to(pipe.execute())
    except ResponseError as error:
        said = str(error).rpartition(CLIENTS_WORDS)[2].strip("(),'\"")
        error.args = (said,)
        raise


async def _reply_to(command: Any) -> Any:  # noqa: ANN401  (the client's types are those of both its kinds)
    """Await a command. Raises InvalidResponse for a reply that the client does not understand."""
    try:
        return await command
    except (TypeError, AttributeError, LookupError) as error:
        raise InvalidResponse(f"a reply that the client does not understand: {error}") from error


def _of_kind(kind: type[T], reply: object) -> T:
    """Return a reply that is of this kind. Raises the error that it is, or InvalidResponse."""
    if isinstance(reply, Exception):
        raise reply
    if not isinstance(reply, kind):
        raise InvalidResponse(f"{type(reply).__name__} instead of {kind.__name__}")
    return reply
