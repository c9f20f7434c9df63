"""Names of servers, looked up so that a resolver which answers nobody holds up nothing else.

asyncio looks them up on the few threads that it shares among all that blocks, and both a loop's end and the
interpreter's wait for those. Where no name server answers, a name takes ten seconds and more, times the domains to
search: what was learned would wait as long to be saved, and the router to begin and to end. Here each look-up has
a thread of its own, which nobody waits for. While a name is looked up, whoever asks for it waits for the same
answer; so there are no more threads than names.

Rejected: a resolver of our own (aiodns), which would have to read what the system's is configured by.
"""

import asyncio
import socket
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

__all__ = ["LookingUp", "run"]

THREAD: Final = "dualpool-look-up"

T = TypeVar("T")
Name = tuple[bytes | str | None, bytes | str | int | None, tuple[tuple[str, int], ...]]
Answer = asyncio.Future[Any]


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns, as `asyncio.run` does, on a loop of this kind."""
    with asyncio.Runner(loop_factory=LookingUp) as runner:
        return runner.run(coroutine)


class LookingUp(asyncio.SelectorEventLoop):
    """A loop as any other, but for its look-ups of names."""

    def __init__(self) -> None:
        super().__init__()
        self._under_way: dict[Name, Answer] = {}

    async def getaddrinfo(self, host: bytes | str | None, port: bytes | str | int | None, **how: int) -> Any:  # noqa: ANN401  (asyncio's)
        """Return the addresses of a name, as `socket.getaddrinfo` does. Raises OSError."""
        name = host, port, tuple(sorted(how.items()))
        if name not in self._under_way:
            self._under_way[name] = answer = self.create_future()
            look_up = threading.Thread(target=self._look_up, args=(name, answer), name=THREAD, daemon=True)
            look_up.start()
        # Unlike a plain await, whoever gives up takes the answer from nobody else.
        found, _ = await asyncio.wait([self._under_way[name]])
        said = found.pop().result()
        if isinstance(said, Exception):
            raise said
        return said

    def _look_up(self, name: Name, answer: Answer) -> None:
        host, port, how = name
        try:
            said: object = socket.getaddrinfo(host, port, **dict(how))
        except (OSError, ValueError) as error:  # what is no host name is a UnicodeError
            said = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            self.call_soon_threadsafe(self._tell, name, answer, said)

    def _tell(self, name: Name, answer: Answer, said: object) -> None:
        del self._under_way[name]
        answer.set_result(said)
