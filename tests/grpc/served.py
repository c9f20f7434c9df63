"""A router whose loop runs in a thread of its own, next to the test's event loop."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import grpc

from extproc.config.schema import Configuration
from extproc.core.exchange.settings import ExchangeSettings
from extproc.server import app as served

__all__ = ["USAGE", "WITHIN_S", "App", "learn_once"]

T = TypeVar("T")
WITHIN_S = 10.0
PATIENT_MS = 60_000
CHAT = b'{"model":"m","messages":[{"role":"user","content":"How are you, all of you?"}],"max_tokens":9}'
USAGE = b'{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":3}}'


class App(served.App):
    """A router that a test starts and stops.

    Its default deadline is a minute, and it sheds no request unless a test makes it: a test may be stalled for
    more than 150 ms between the parts of a request, and the router's loop with it.
    """

    def __init__(self, configuration: Configuration, file: Path | None = None) -> None:
        if configuration.exchange.deadline_ms == ExchangeSettings().deadline_ms:
            patient = replace(configuration.exchange, deadline_ms=PATIENT_MS)
            configuration = replace(configuration, exchange=patient)
        super().__init__(configuration, file)
        setattr(self._streams.overload, "sheds", lambda _now_s: False)  # noqa: B010  (a method)
        self._thread = threading.Thread(target=self.run)

    async def start(self) -> None:
        """Start serving."""
        self._thread.start()

    async def stop(self) -> None:
        """Stop without draining; a second call does nothing."""
        self.end(at_once=True)
        await asyncio.to_thread(self._thread.join)

    async def calls_over(self) -> None:
        """Wait until no call is left: a response is learned from after its last reply is on its way."""
        async with asyncio.timeout(WITHIN_S):
            while self.ask(lambda: bool(self._core._calls)):  # noqa: ASYNC110  (the loop is on another thread)
                await asyncio.sleep(0.005)

    def turn_unready(self) -> None:
        """Report NOT_SERVING as a drain does: from then on the router no longer judges once a second whether it is
        ready.
        """

        def turn() -> None:
            self._serving = False
            self._health.set_ready(ready=False)

        self.ask(turn)

    def ask(self, function: Callable[[], T]) -> T:
        """Run a function on the router's loop; return its result."""
        return self.loop.ask(function, WITHIN_S)


async def learn_once(app: App, call: type[Any]) -> None:
    """Send one exchange that the router learns from."""
    async with grpc.aio.insecure_channel(app.grpc_address) as channel:
        stream = call(channel)
        await stream.headers()
        await stream.body(CHAT)
        await stream.response_headers()
        await stream.response_body(USAGE)
        while await stream.read() is not None:
            pass
    await app.calls_over()
