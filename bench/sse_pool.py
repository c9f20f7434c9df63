"""A pool that responds to every request with a stream of events, one write per event, at a steady rate.

Run: python -m bench.sse_pool EVENTS INTERVAL_MS; it prints its address.
"""

import asyncio
import sys

import uvloop

__all__ = ["main"]

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":" a"}}]}'
)
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":420,"completion_tokens":%d,"total_tokens":1420}}'
DONE = b"data: [DONE]"


async def main(events: int, interval_s: float) -> None:
    """Serve until killed."""

    async def response(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await _read_request(reader)
                await _write_response(writer, events, interval_s)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(response, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"{host}:{port}", flush=True)
    await server.serve_forever()


async def _read_request(reader: asyncio.StreamReader) -> None:
    """Read a request and discard it; Envoy sends STREAMED bodies chunked."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"transfer-encoding: chunked" in head:
        await reader.readuntil(b"0\r\n\r\n")
    elif b"content-length: " in head:
        await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r")[0]))


async def _write_response(writer: asyncio.StreamWriter, events: int, interval_s: float) -> None:
    """Write `events` events, of which the last two are usage and [DONE], and end the body."""
    clock = asyncio.get_running_loop().time
    began_s = clock()
    writer.write(HEAD)
    for number in range(events - 2):
        _write_chunk(writer, EVENT)
        await asyncio.sleep(max(began_s + (number + 1) * interval_s - clock(), 0))
    for last in (USAGE % (events - 2), DONE):
        _write_chunk(writer, last)
        await asyncio.sleep(interval_s)
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def _write_chunk(writer: asyncio.StreamWriter, event: bytes) -> None:
    writer.write(b"%x\r\n%b\n\n\r\n" % (len(event) + 2, event))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1]), float(sys.argv[2]) / 1000))
