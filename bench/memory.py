"""Memory of the router after few and many requests of every kind."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from bench import messages
from bench.load import grpc_load
from bench.measuring import Plan, Table
from bench.stack import Server, Stack

__all__ = ["measure"]

BODY_BYTES = 2048
MODELS = 1200  # more than the categories that the router remembers (1,024)
PASS_RUNS, PASSES = 10, 10
SETTLES_WITHIN_S = 10.0
PAUSE_S = 0.2
# The router checks every second for memory that it can return to the system.
UNCHANGED_S = 2.0
LARGE_BYTES, LARGE_REQUESTS = 2 << 20, 320
LIMIT_MB, GROWTH_MB = 130, 3
NOTES = f"""\
Resident memory of the router's process under direct load. Each pass sends the same requests: {MODELS:,} new
models, each with its own category (the router remembers 1,024, and has metric labels for 50); released; learned
from JSON; refused for their length; responses with status 500, broken JSON, impossible usage; bodies that are not
JSON; large bodies that are decided early; other paths. Afterwards {LARGE_REQUESTS} requests of {LARGE_BYTES >> 20}
MB, 32 at a time. Read after it has not changed for {UNCHANGED_S:.0f} s. Bars: at most {LIMIT_MB} MB, and at most
{GROWTH_MB} MB of growth."""


def measure(stack: Stack, plan: Plan) -> list[Table]:
    """Read the memory after one and after ten passes over all kinds: 10 and 100 times the plan's requests."""
    router = stack.router()
    idle = router.rss_mb()
    files = _write_kinds(stack.folder)
    few = max(plan.requests * PASS_RUNS, 2 * MODELS)
    readings = []
    for number in range(PASSES):
        asyncio.run(_many_models(router.address, str(number)))
        for file in files:
            grpc_load(router.address, file, (few - MODELS) // len(files))
        if number in (0, PASSES - 1):
            readings.append(_settled_rss_mb(router))
    large = stack.folder / "large.frames"
    large.write_bytes(messages.frames(_chat(messages.chat_body(LARGE_BYTES))))
    grpc_load(router.address, large, LARGE_REQUESTS)
    at_last = _settled_rss_mb(router)
    growth = readings[1] - readings[0]
    rows = [
        ("none", f"{idle:.1f}", "", ""),
        (f"{few:,}", f"{readings[0]:.1f}", "", f"<= {LIMIT_MB}"),
        (f"{few * PASSES:,}", f"{readings[1]:.1f}", f"{growth:+.1f}", f"<= {LIMIT_MB}, <= +{GROWTH_MB}"),
        (f"and {LARGE_REQUESTS} of {LARGE_BYTES >> 20} MB", f"{at_last:.1f}", "", f"<= {LIMIT_MB}"),
    ]
    return [Table("Memory", NOTES, ("requests", "RSS, MB", "change, MB", "bar, MB"), rows)]


def _write_kinds(folder: Path) -> list[Path]:
    files = []
    for number, exchange in enumerate(_kinds()):
        file = folder / f"kind-{number}.frames"
        file.write_bytes(messages.frames(exchange))
        files.append(file)
    return files


def _kinds() -> Iterator[list[bytes]]:
    learnable = _chat(messages.chat_body(BODY_BYTES))
    refusal = b'{"error":{"message":"This model\'s maximum context length is 8192 tokens.","code":400}}'
    yield _chat(messages.chat_body(BODY_BYTES, stream=True))
    yield learnable + messages.response(messages.chat_response())
    yield learnable + messages.response(refusal, {":status": "400"})
    yield learnable + messages.response(b"{}", {":status": "500"})
    yield learnable + messages.response(b'{"usage":')
    yield learnable + messages.response(b'{"usage":{"prompt_tokens":-1}}')
    yield _chat(b'{"model": "bench", "messages": [')
    yield _chat(messages.chat_body(256 << 10))
    yield messages.request([b"x"], {":path": "/other"})


def _chat(body: bytes) -> list[bytes]:
    return messages.request(messages.http1_pieces(body))


async def _many_models(address: str, mark: str) -> None:
    """Let the router learn from one response of each of many models."""
    response = messages.response(messages.chat_response())
    async with grpc.aio.insecure_channel(address) as channel:
        method: Any = channel.stream_stream(
            f"/{messages.SERVICE}/Process", request_serializer=None, response_deserializer=None
        )
        for number in range(MODELS):
            body = messages.chat_body(BODY_BYTES, model=f"model-{mark}-{number}")
            exchange = messages.request(messages.http1_pieces(body)) + response
            call = method()
            # Without the last message, the empty end: the router closes the stream before it, and if the library
            # is just sending a message then, it reports an internal error.
            for message in exchange[:-1]:
                await call.write(message)
            while await call.read():  # false at the end
                pass


def _settled_rss_mb(router: Server) -> float:
    """Return the memory after all streams are closed and it has stopped changing."""
    deadline = time.monotonic() + SETTLES_WITHIN_S
    while router.metric("dualpool_streams_open") and time.monotonic() < deadline:
        time.sleep(PAUSE_S)
    last, since_s = router.rss_mb(), time.monotonic()
    while time.monotonic() < min(deadline, since_s + UNCHANGED_S):
        time.sleep(PAUSE_S)
        if router.rss_mb() != last:
            last, since_s = router.rss_mb(), time.monotonic()
    return router.rss_mb()
