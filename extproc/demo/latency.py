"""The latency that the router adds: the same request is sent with and without the filter, in turn.

Both ways lead through the same Envoy to the short pool; without the filter the client names the pool itself.
Requests are sent one at a time, with no other load, and the emulated pool answers with one token. The router may
learn from these responses, as it would from real ones.
"""

import time
from dataclasses import dataclass
from statistics import median

import aiohttp

from extproc.demo.workload import MODEL

__all__ = ["Latency", "measure"]

PAIRS = 60
WARM_UP_PAIRS = 5
POOL_HEADER = {"x-token-budget-pool": "short"}


@dataclass(frozen=True, slots=True)
class Latency:
    """Median times of a small request, in milliseconds."""

    without_router_ms: float
    with_router_ms: float

    @property
    def added_ms(self) -> float:
        """The difference between the two medians."""
        return self.with_router_ms - self.without_router_ms


async def measure(url: str, plain_url: str) -> Latency:
    """Measure both ways. Raises aiohttp.ClientError if a request fails."""
    body = {"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": "Say yes or no. " * 150}]}
    plain_ms, routed_ms = [], []
    async with aiohttp.ClientSession(raise_for_status=True, timeout=aiohttp.ClientTimeout(10)) as client:
        for _ in range(WARM_UP_PAIRS + PAIRS):
            plain_ms.append(await _timed_ms(client, plain_url, body, POOL_HEADER))
            routed_ms.append(await _timed_ms(client, url, body, {}))
    return Latency(median(plain_ms[WARM_UP_PAIRS:]), median(routed_ms[WARM_UP_PAIRS:]))


async def _timed_ms(client: aiohttp.ClientSession, url: str, body: object, headers: dict[str, str]) -> float:
    start_s = time.perf_counter()
    async with client.post(f"{url}/v1/chat/completions", json=body, headers=headers) as response:
        await response.read()
    return (time.perf_counter() - start_s) * 1000
