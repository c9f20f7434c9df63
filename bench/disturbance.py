"""A router that is disturbed while requests are in flight: stopped, killed, or not running."""

import asyncio
import os
import random
import signal

from bench.stack import Server, Stack

__all__ = ["STATES", "DisturbedRouter"]

STATES = ("up", "stopped", "killed", "down")
# Longer than Envoy's message_timeout and the router's deadline, so that both expire while the router is stopped.
STOPPED_S = 0.8
# The kill happens between now and this much later, while the second halves are sent.
KILLED_WITHIN_S = 0.05


class DisturbedRouter:
    """Puts a router into one of STATES. `settings` are the router's, in YAML."""

    def __init__(self, stack: Stack, settings: str) -> None:
        self._stack, self._settings = stack, settings
        self._chance = random.Random(0)  # noqa: S311  (moments, not secrets)
        self._running = True
        self._acting: asyncio.Future[None] | None = None
        self.server: Server = stack.router(settings)

    def prepare(self, state: str) -> None:
        """Start or kill the router, as `state` requires, before the next requests."""
        if state == "down":
            self._kill()
        elif not self._running:
            self.server = self._stack.router(self._settings, address=self.server.address)
            self._running = True

    async def disturb(self, state: str) -> None:
        """Start the disturbance; called in the middle of requests."""
        self._acting = asyncio.ensure_future(self._act(state))

    async def settled(self) -> None:
        """Wait until the disturbance is over."""
        if self._acting is not None:
            await self._acting

    async def _act(self, state: str) -> None:
        if state == "stopped":
            os.kill(self.server.pid, signal.SIGSTOP)
            await asyncio.sleep(STOPPED_S)
            os.kill(self.server.pid, signal.SIGCONT)
        elif state == "killed":
            await asyncio.sleep(self._chance.uniform(0, KILLED_WITHIN_S))
            self._kill()

    def _kill(self) -> None:
        if self._running:
            os.kill(self.server.pid, signal.SIGKILL)
            self._running = False
