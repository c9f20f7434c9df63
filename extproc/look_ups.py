"""Name resolution that does not hold up anything else when no name server responds.

asyncio resolves names on the few threads that it shares among all blocking calls, and both closing a loop and
exiting the interpreter wait for those threads. If no name server responds, a look-up takes ten seconds or more per
search domain, and start, shutdown and saving what was learned would wait as long. Here each look-up has a daemon
thread, which neither of them waits for. Concurrent look-ups of one name share a thread and its result, so there
are no more threads than names.

Rejected: a separate resolver (aiodns), which would have to read the configuration of the system's resolver.
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
    """Run a coroutine and return its result, like `asyncio.run`, on a loop of this kind."""
    with asyncio.Runner(loop_factory=LookingUp) as runner:
        return runner.run(coroutine)


class LookingUp(asyncio.SelectorEventLoop):
    """A selector event loop that resolves names on separate threads."""

    def __init__(self) -> None:
        super().__init__()
        self._under_way: dict[Name, Answer] = {}

    async def getaddrinfo(self, host: bytes | str | None, port: bytes | str | int | None, **how: int) -> Any:  # noqa: ANN401  (asyncio's)
        """Return the addresses of a name, like `socket.getaddrinfo`. Raises OSError."""
        name = host, port, tuple(sorted(how.items()))
        if name not in self._under_way:
            answer = self.create_future()
            look_up = threading.Thread(target=self._look_up, args=(name, answer), name=THREAD, daemon=True)
            try:
                look_up.start()
            except RuntimeError as error:  # threads have run out; the next look-up may get one
                raise socket.gaierror(socket.EAI_SYSTEM, str(error)) from error
            self._under_way[name] = answer
        # Unlike a plain await, cancelling one waiter does not cancel the future that the others wait for.
        found, _ = await asyncio.wait([self._under_way[name]])
        said = found.pop().result()
        if isinstance(said, Exception):
            raise said
        return said

    def _look_up(self, name: Name, answer: Answer) -> None:
        host, port, how = name
        try:
            said: object = socket.getaddrinfo(host, port, **dict(how))
        except (OSError, ValueError) as error:  # an invalid host name raises UnicodeError
            said = error
        with suppress(RuntimeError):  # the loop was closed in the meantime
            self.call_soon_threadsafe(self._deliver, name, answer, said)

    def _deliver(self, name: Name, answer: Answer, said: object) -> None:
        del self._under_way[name]
        answer.set_result(said)
