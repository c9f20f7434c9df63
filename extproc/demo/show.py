"""The demo from start to end."""

import asyncio
import json
import signal
import sys
import time
from dataclasses import dataclass

import aiohttp
from rich.console import Console
from rich.live import Live

from extproc.demo.driver import drive, warm_up
from extproc.demo.latency import Latency, measure
from extproc.demo.outcomes import Logged, Outcome, Summary, summarise
from extproc.demo.processes import StartFailed
from extproc.demo.screen import LiveTable, show_addresses, show_summary, show_try_it
from extproc.demo.stack import LONG_POOL_TOKENS, SHORT_POOL, Stack
from extproc.demo.workload import MODEL, Ask, workload

__all__ = ["Options", "run"]

LEARNED_EVERY_S = 0.5
LOG_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `dualpool demo`."""

    once: bool
    as_json: bool
    requests: int


def run(options: Options) -> int:
    """Run the demo; return the command's exit code. Raises ConfigurationError."""
    asks = workload(options.requests, LONG_POOL_TOKENS)
    console = Console(quiet=options.as_json, highlight=False)
    console.print("Starting Envoy, the router and two emulated pools ...")
    try:
        with Stack() as stack:
            show_addresses(console, stack)
            summary = _act(stack, asks, options, console)
            if not options.once:
                show_try_it(console, stack.gateway.url, MODEL)
                _until_interrupted()
    except StartFailed as error:
        Console(stderr=True, soft_wrap=True, markup=False, highlight=False).print(f"dualpool demo: {error}")
        return 1
    return 1 if summary.total.failed else 0


def _act(stack: Stack, asks: list[Ask], options: Options, console: Console) -> Summary:
    asyncio.run(warm_up(stack.gateway.plain_url))
    start_s = time.monotonic()
    outcomes = asyncio.run(_drive(stack, asks, console))
    seconds = time.monotonic() - start_s
    learned = stack.learned()  # before the measurement, whose repeated text would be learned, too
    latency = asyncio.run(_measured(stack))
    summary = summarise(outcomes, _logged(stack, len(asks)), learned, SHORT_POOL)
    stack.keep_logs = bool(summary.total.failed)
    show_summary(console, summary, latency, seconds)
    if stack.keep_logs:
        console.print(f"[red]Logs are kept in {stack.folder}[/]")
    if options.as_json:
        sys.stdout.write(json.dumps(summary.as_json() | _times(latency, seconds), indent=2) + "\n")
        sys.stdout.flush()
    return summary


async def _measured(stack: Stack) -> Latency | None:
    try:
        return await measure(stack.gateway.url, stack.gateway.plain_url)
    except (aiohttp.ClientError, TimeoutError):
        return None  # then requests of the run failed as well, and the summary lists them


async def _drive(stack: Stack, asks: list[Ask], console: Console) -> list[Outcome]:
    table = LiveTable(len(asks))
    if console.quiet:  # nobody watches, and after a look the router keeps that page for up to 10 s
        return await drive(stack.gateway.url, asks, table.add)
    with Live(table, console=console, refresh_per_second=8):
        learning = asyncio.create_task(_follow(stack, table))
        outcomes = await drive(stack.gateway.url, asks, table.add)
        learning.cancel()
        table.learned = stack.learned()
    if not console.is_terminal:
        console.print()  # rich ends the last line on terminals only
    console.print()
    return outcomes


async def _follow(stack: Stack, table: LiveTable) -> None:
    while True:
        table.learned = await asyncio.to_thread(stack.learned)
        await asyncio.sleep(LEARNED_EVERY_S)


def _logged(stack: Stack, requests: int) -> dict[int, Logged]:
    """Return the access log's entries, which Envoy writes shortly after the responses."""
    deadline = time.monotonic() + LOG_WITHIN_S
    while len(logged := stack.gateway.logged()) < requests and time.monotonic() < deadline:
        time.sleep(0.05)
    return logged


def _times(latency: Latency | None, seconds: float) -> dict[str, object]:
    return {
        "seconds": round(seconds, 2),
        "added_latency_ms": latency and round(latency.added_ms, 3),
        "with_router_ms": latency and round(latency.with_router_ms, 3),
        "without_router_ms": latency and round(latency.without_router_ms, 3),
    }


def _until_interrupted() -> None:
    try:
        signal.pause()
    except KeyboardInterrupt:
        return
