"""A small model of vLLM's scheduler, which decides which requests run and which wait.

A request runs if there are seats for its sequences (max_num_seqs) and room for its prompt in the KV cache; other
requests wait, first come first served. Each decode step adds a token per sequence. If the cache overflows, the
request admitted last is preempted: its tokens are dropped, it waits at the head of the queue and is prefilled
again. Prefill is one resource shared by all requests; decoding has a speed per request. Not modelled: chunked
prefill, prefix caching, blocks.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from extproc.emulator.settings import EmulatorSettings

__all__ = ["Running", "Scheduler"]

BLOCK_TOKENS = 16  # decoded at a time for a response that is not streamed


class Running:
    """An admitted request: it holds seats and KV tokens until it ends or is preempted."""

    def __init__(self, scheduler: "Scheduler", seats: int, prompt_tokens: int) -> None:
        self.seats = seats
        self.tokens = prompt_tokens
        self.admitted: asyncio.Future[None] | None = None
        self.preempted = False
        self._scheduler = scheduler
        self._next_at_s = 0.0

    async def decode(self, steps: int = 1) -> None:
        """Spend the time of some decode steps and take room for their tokens; the request may be preempted."""
        for done in range(0, steps, BLOCK_TOKENS):
            await self._decode_block(min(BLOCK_TOKENS, steps - done))

    async def _decode_block(self, steps: int) -> None:
        if self.preempted:
            await self._scheduler.readmit(self)
        self._scheduler.grow(self, steps * self.seats)
        speed = self._scheduler.settings.decode_tokens_per_s
        if speed is not None:
            self._next_at_s += steps / speed
            await self._scheduler.sleep_until(self._next_at_s)

    def start_clock(self) -> None:
        """Start decoding now."""
        self._next_at_s = self._scheduler.now_s()


class Scheduler:
    """The seats and the KV cache of one pool; /metrics reports its counts."""

    def __init__(
        self,
        settings: EmulatorSettings,
        now_s: Callable[[], float],
        sleep_s: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.settings = settings
        self.now_s, self._sleep_s = now_s, sleep_s
        self.running: list[Running] = []
        self.waiting: deque[Running] = deque()
        self.preemptions = 0
        self._prefill_free_at_s = 0.0

    @property
    def kv_usage(self) -> float:
        """The share of the KV cache in use, 0 to 1."""
        return min(self._tokens() / self.settings.kv_capacity, 1.0)

    @asynccontextmanager
    async def admit(self, sequences: int, prompt_tokens: int) -> AsyncIterator[Running]:
        """Wait for a place, prefill, and hold the place until the context exits."""
        request = Running(self, min(sequences, self.settings.max_num_seqs), prompt_tokens)
        try:
            await self._enter(request, first=False)
            yield request
        finally:
            self._leave(request)

    async def readmit(self, request: Running) -> None:
        """Admit a preempted request again, ahead of all waiting requests."""
        request.preempted = False
        await self._enter(request, first=True)

    def grow(self, request: Running, tokens: int) -> None:
        """Take room for more tokens; if the cache overflows, preempt the requests admitted last."""
        request.tokens += tokens
        while self._tokens() > self.settings.kv_capacity and len(self.running) > 1:
            victim = self.running.pop()
            victim.preempted = True
            self.preemptions += 1

    async def sleep_until(self, at_s: float) -> None:
        """Sleep until a point in time; return at once if it has passed."""
        wait_s = at_s - self.now_s()
        if wait_s > 0:
            await self._sleep_s(wait_s)

    async def _enter(self, request: Running, *, first: bool) -> None:
        if first or self.waiting or not self._fits(request):
            request.admitted = asyncio.get_running_loop().create_future()
            (self.waiting.appendleft if first else self.waiting.append)(request)
            self._admit_waiting()
            await request.admitted
        else:
            self.running.append(request)
        await self._prefill(request.tokens)
        request.start_clock()

    async def _prefill(self, tokens: int) -> None:
        if self.settings.prefill_tokens_per_s is not None:
            start_s = max(self.now_s(), self._prefill_free_at_s)
            self._prefill_free_at_s = start_s + tokens / self.settings.prefill_tokens_per_s
            await self.sleep_until(self._prefill_free_at_s)

    def _leave(self, request: Running) -> None:
        for place in (self.running, self.waiting):
            if request in place:
                place.remove(request)
        self._admit_waiting()

    def _admit_waiting(self) -> None:
        while self.waiting and self._fits(self.waiting[0]):
            request = self.waiting.popleft()
            self.running.append(request)
            if request.admitted is not None and not request.admitted.done():
                request.admitted.set_result(None)

    def _fits(self, request: Running) -> bool:
        if not self.running:
            return True  # a single request always runs: none is longer than the cache
        seats = sum(each.seats for each in self.running) + request.seats
        return seats <= self.settings.max_num_seqs and self._tokens() + request.tokens <= self.settings.kv_capacity

    def _tokens(self) -> int:
        return sum(each.tokens for each in self.running)
