"""Cost of viewers of the router's live page."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import httpx

from bench import messages
from bench.measuring import Plan, Table, spread
from bench.stack import Server, Stack

__all__ = ["measure"]

VIEWERS = 3
MODELS = 60  # more than have their own metric label, so that all possible series exist
WINDOW_S = 10.0
RATES = (0, 50)
BAR_PERCENT = 1.0
NOTES = f"""\
CPU of the router's process, in percent of a core, over {WINDOW_S:g} s, alternately without and with {VIEWERS}
viewers of the live page, after responses of {MODELS} models: without requests, and with a number of decided
requests per second that get no response. The page's data is collected once per second, however many watch. Bar:
less than {BAR_PERCENT:g} %."""


def measure(stack: Stack, plan: Plan) -> list[Table]:
    """Compare the router's CPU time with and without viewers; the plan's number of requests is not used."""
    router = stack.router()
    rows = asyncio.run(_rows(router, plan.rounds))
    columns = ("decided per second", "no viewers, %", f"{VIEWERS} viewers, %", "for the viewers, %", "bar, %")
    return [Table("Viewers of the live page", NOTES, columns, rows)]


async def _rows(router: Server, rounds: int) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    async with grpc.aio.insecure_channel(router.address) as channel:
        for number in range(MODELS):
            body = messages.chat_body(1024, model=f"model-{number}")
            exchange = messages.request(messages.http1_pieces(body)) + messages.response(messages.chat_response())
            await _exchanged(channel, exchange)
        for rate in RATES:
            pairs = [await _pair(router, channel, rate) for _ in range(rounds)]
            alone, watched = zip(*pairs, strict=True)
            more = [b - a for a, b in pairs]
            rows.append((str(rate), spread(alone, 2), spread(watched, 2), spread(more, 2), f"< {BAR_PERCENT:g}"))
    return rows


async def _pair(router: Server, channel: grpc.aio.Channel, rate: int) -> tuple[float, float]:
    """Return the percent of a core used without viewers, and with all of them."""
    alone = await _percent(router, channel, rate)
    async with AsyncExitStack() as watching:
        for _ in range(VIEWERS):
            await watching.enter_async_context(_viewer(router))
        return alone, await _percent(router, channel, rate)


async def _percent(router: Server, channel: grpc.aio.Channel, rate: int) -> float:
    exchange = messages.request(messages.http1_pieces(messages.chat_body(1024, stream=True)))
    started, before = time.monotonic(), router.cpu_us()
    while (passed := time.monotonic() - started) < WINDOW_S:
        if rate:
            await _exchanged(channel, exchange)
        await asyncio.sleep(1 / rate if rate else WINDOW_S - passed)
    return (router.cpu_us() - before) / (time.monotonic() - started) / 1e4


async def _exchanged(channel: grpc.aio.Channel, exchange: list[bytes]) -> None:
    call = channel.stream_stream(
        f"/{messages.SERVICE}/Process", request_serializer=None, response_deserializer=None
    )
    async for _ in call(iter(exchange)):
        pass


@asynccontextmanager
async def _viewer(router: Server) -> AsyncIterator[None]:
    """Watch as the page does; the context is entered when the first event has arrived."""
    first = asyncio.Event()

    async def watch() -> None:
        url = f"http://{router.admin}/live"
        async with httpx.AsyncClient(timeout=30) as client, client.stream("GET", url) as response:
            async for _ in response.aiter_lines():
                first.set()

    watching = asyncio.ensure_future(watch())
    await first.wait()
    yield
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
