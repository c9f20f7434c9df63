"""What the store replies to single commands, and how it refuses them."""

from typing import Any, Final, cast

import redis.asyncio as redis
from redis.exceptions import ResponseError

__all__ = ["commit", "name_of", "part_of", "value_of"]

CLIENTS_WORDS: Final = "of pipeline caused error: "
FOREIGN: Final = b"?"  # the head of a value that is not a string, such as another program's list or hash


async def commit(pipe: Any) -> None:  # noqa: ANN401  (a pipeline of the client)
    """Execute a transaction. What it raises has the store's own words, without the client's copy of the command: a
    part of the state, which is binary and begins with names of models.
    """
    try:
        await pipe.execute()
    except ResponseError as error:
        said = str(error).rpartition(CLIENTS_WORDS)[2].strip("(),'\"")
        error.args = (said,)
        raise


def part_of(result: bytes | Exception) -> bytes:
    """Return a part of a key's value, or FOREIGN if that is not a string. Raises any other error."""
    if isinstance(result, ResponseError) and str(result).startswith("WRONGTYPE"):
        return FOREIGN
    if isinstance(result, Exception):
        raise result
    return result


async def value_of(pipe: redis.Redis, key: str) -> bytes | None:
    """Return a key's value, FOREIGN if that is not a string, None if there is no key."""
    try:
        return cast("bytes | None", await cast("Any", pipe.get(key)))
    except ResponseError as error:
        return part_of(error)


def name_of(name: bytes | str) -> str:
    """Return a name as text."""
    return name.decode(errors="replace") if isinstance(name, bytes) else name
