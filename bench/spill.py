"""Spill-over in a real stack: an open-loop burst on the short pool, with and without spill-over.

The stack is two emulated pools with real queues, the router that polls them every second, Envoy, and clients that
start requests at their scheduled times however slow the responses are.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
import numpy as np

from bench.measuring import Plan, Table
from bench.stack import Gateway, Server, Stack

__all__ = ["measure"]

# Seconds of usual traffic, of the burst, and after it; requests per second for the short pool and the long one.
USUAL_S, BURST_S, AFTER_S = 6.0, 12.0, 16.0
SHORT_PER_S, BURST_PER_S, LONG_PER_S = 3.0, 14.0, 1.0
OUTPUT_TOKENS = 40
SHORT_TEXT, LONG_TEXT = "Tell me about the sea. " * 8, "Tell me about the sea. " * 500
POOL = ("--model", "m", "--tokenizer", "bytes", "--max-num-seqs", "8", "--decode-tokens-per-s", "40")
SETTINGS = """\
pools:
  - {{name: short, max_budget_tokens: 2000, max_model_len: 2500, endpoints: {{urls: ["{short}"]}}}}
  - {{name: long, max_budget_tokens: 32000, endpoints: {{urls: ["{long}"]}}}}
spill: {{enabled: {enabled}}}
"""
NOTES = f"""\
Two pools of 8 sequences at 40 tokens per second, {OUTPUT_TOKENS} tokens per response: about 8 requests per second
each. Open loop: {SHORT_PER_S:g} short and {LONG_PER_S:g} long requests per second, and {BURST_PER_S:g} short ones
for {BURST_S:g} s. Time to first token of requests that belong in the short pool (hot) and in the long one (cold),
and the time from the end of the burst to the last request served elsewhere. Bars: the hot pool's P99 falls by more
than the cold one's rises; no request is refused; within 10 s after the queue has emptied all requests are served
by their own pool again."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """One request: start, the pool it belongs to and was served by, time to first token, status, attempts."""

    at_s: float
    hot: bool
    served_by: str
    ttft_s: float
    status: int
    attempts: int


def measure(stack: Stack, plan: Plan) -> list[Table]:
    """Run with and without spill-over in every round."""
    runs: dict[bool, list[list[_Seen]]] = {False: [], True: []}
    for seed in range(plan.rounds):
        for enabled, seen in runs.items():
            seen.append(_run(stack, seed, enabled=enabled))
    columns = (
        *("spill-over", "hot P50, s", "hot P99, s", "cold P99, s", "served elsewhere"),
        *("refused or retried", "queue empty, s after the burst", "last elsewhere, s after the burst"),
    )
    rows = [
        _row("on" if enabled else "off", [each for run in seen for each in run]) for enabled, seen in runs.items()
    ]
    return [Table("Spill-over: a burst on the short pool", NOTES, columns, rows)]


def _run(stack: Stack, seed: int, *, enabled: bool) -> list[_Seen]:
    short, long = _pool(stack, "short", 2_500), _pool(stack, "long", 32_000)
    settings = SETTINGS.format(short=short, long=long, enabled=str(enabled).lower())
    router = stack.router(settings)
    _wait_for_pools(router)
    gateway = stack.gateway(
        "streamed", router, long.removeprefix("http://"), short_pool=short.removeprefix("http://")
    )
    return asyncio.run(_load(gateway, random.Random(seed)))  # noqa: S311  (load, repeatable)


def _pool(stack: Stack, name: str, max_model_len: int) -> str:
    pool = stack.printing(
        "extproc.cli.main", "emulate", *POOL, "--name", name, "--max-model-len", str(max_model_len)
    )
    return pool.address.rpartition(" ")[2]


def _wait_for_pools(router: Server) -> None:
    while router.metric("dualpool_pool_endpoints_answered") < 2:
        time.sleep(0.1)


async def _load(gateway: Gateway, chance: random.Random) -> list[_Seen]:
    """Start every request at its scheduled time; return the results."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
        began_s = time.monotonic()
        tasks = []
        for at_s, hot in _arrivals(chance):
            await asyncio.sleep(max(began_s + at_s - time.monotonic(), 0))
            tasks.append(group.create_task(_ask(session, gateway.address, at_s, hot=hot)))
    return [task.result() for task in tasks]


def _arrivals(chance: random.Random) -> list[tuple[float, bool]]:
    arrivals: list[tuple[float, bool]] = []
    ends_s = USUAL_S + BURST_S + AFTER_S
    for hot, rates in ((True, (SHORT_PER_S, BURST_PER_S)), (False, (LONG_PER_S, LONG_PER_S))):
        at_s = 0.0
        while True:
            at_s += chance.expovariate(rates[USUAL_S <= at_s < USUAL_S + BURST_S])
            if at_s >= ends_s:
                break
            arrivals.append((at_s, hot))
    return sorted(arrivals)


async def _ask(session: aiohttp.ClientSession, url: str, at_s: float, *, hot: bool) -> _Seen:
    text = f"{at_s} {SHORT_TEXT if hot else LONG_TEXT}"  # a new conversation each time
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": OUTPUT_TOKENS,
        "ignore_eos": True,
        "stream": True,
    }
    began_s = time.monotonic()
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        await response.content.readany()
        ttft_s = time.monotonic() - began_s
        async for _ in response.content.iter_any():
            pass
        attempts = int(response.headers.get("x-envoy-attempt-count", "1"))
        served_by = response.headers.get("x-served-by", "")
        return _Seen(at_s, hot, served_by, ttft_s, response.status, attempts)


def _row(name: str, seen: Sequence[_Seen]) -> Sequence[str]:
    hot = [each.ttft_s for each in seen if each.hot]
    cold = [each.ttft_s for each in seen if not each.hot]
    elsewhere = [each for each in seen if each.served_by != ("short" if each.hot else "long")]
    waited = [
        each.at_s + each.ttft_s for each in seen if each.hot and each.served_by == "short" and each.ttft_s > 1
    ]
    wrong = sum(each.status != 200 or each.attempts > 1 for each in seen)
    over_s = USUAL_S + BURST_S
    return (
        *(
            name,
            f"{np.percentile(hot, 50):.2f}",
            f"{np.percentile(hot, 99):.2f}",
            f"{np.percentile(cold, 99):.2f}",
        ),
        *(f"{len(elsewhere)} of {len(seen)}", str(wrong), f"{max(waited, default=over_s) - over_s:.1f}"),
        f"{max(each.at_s for each in elsewhere) - over_s:.1f}" if elsewhere else "none",
    )
