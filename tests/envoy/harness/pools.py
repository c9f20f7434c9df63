"""The two emulated pools, on an event loop in a thread of this process."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from extproc.emulator import Emulator, EmulatorSettings, ReceivedRequest
from extproc.emulator.settings import Compression
from tests.envoy.harness.router import SHORT_POOL_TOKENS

__all__ = ["MODEL", "REFUSED_TOKENS", "SHORT_MODEL_LEN", "Pools", "address"]

MODEL = "served-model"
T = TypeVar("T")

# The short pool holds half of what the router is configured with, so that a test can misroute a request at will:
# with REFUSED_TOKENS output tokens it fits the router's limit but not the pool's.
SHORT_MODEL_LEN = SHORT_POOL_TOKENS // 2
REFUSED_TOKENS = SHORT_MODEL_LEN + 100


def address(pool: Emulator) -> str:
    """Return a pool's address as host:port."""
    return pool.url.removeprefix("http://")


class Pools:
    """The pools `short` and `long`, running; `speed` is the tokens per second of a response, None for no limit."""

    def __init__(self, speed: float | None = None, compression: Compression = Compression.NONE) -> None:
        self._speed, self._compression = speed, compression
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pools")
        self._thread.start()
        self.short = self._emulator("short", SHORT_MODEL_LEN)
        self.long = self._emulator("long", 65536)
        self.all = [self.short, self.long]

    def clusters(self) -> dict[str, str]:
        """Return host:port by cluster name in `envoy/`."""
        return {"pool_short": address(self.short), "pool_long": address(self.long)}

    def received(self, mark: str) -> list[tuple[str, ReceivedRequest]]:
        """Return (pool name, request) of every received request whose path contains `mark`."""
        return [(pool.settings.name, r) for pool in self.all for r in list(pool.received) if mark in r.path]

    def stop(self) -> None:
        """Stop both pools, and end the thread."""
        for pool in self.all:
            self._run(pool.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _emulator(self, name: str, max_model_len: int, model: str = MODEL) -> Emulator:
        settings = EmulatorSettings(
            model=model,
            max_model_len=max_model_len,
            name=name,
            decode_tokens_per_s=self._speed,
            compression=self._compression,
            faults=True,
        )

        async def start() -> Emulator:
            emulator = Emulator(settings)
            await emulator.start()
            return emulator

        return self._run(start())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)
