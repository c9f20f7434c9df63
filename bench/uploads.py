"""Clients that upload a body in two halves, so that the router can be disturbed between them."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

__all__ = ["Outcome", "Upload", "upload_all"]

PIECE_BYTES = 64 << 10
TAKEN_WITHIN_S = 0.3
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Upload:
    """One request. `chunked` sends it without a content-length; `fields` are additional header lines."""

    path: str
    body: bytes = field(repr=False)
    chunked: bool
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an upload: its status (0: none), what the pool reports, and whether the body arrived intact.

    `intact` is None if no pool has read the body: it was refused or failed, which the client can see.
    """

    upload: Upload
    status: int
    pool: str = ""
    intact: bool | None = None
    broken: str = ""


async def upload_all(
    port: int, uploads: Sequence[Upload], between: Callable[[], Awaitable[None]]
) -> list[Outcome]:
    """Send all uploads concurrently to Envoy at a port.

    `between` is called after all first halves are sent and before the second halves. An upload that gets no
    connection has the status 0.
    """
    half_way = asyncio.Barrier(len(uploads) + 1)
    sending = [asyncio.ensure_future(_upload(port, each, half_way)) for each in uploads]
    await half_way.wait()
    await between()
    await half_way.wait()
    return await asyncio.gather(*sending)


async def _upload(port: int, upload: Upload, half_way: asyncio.Barrier) -> Outcome:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:  # Envoy has died; the others wait for this one at the barrier
        await half_way.wait()
        await half_way.wait()
        return Outcome(upload, 0)
    middle = len(upload.body) // 2
    try:
        try:
            framing = "transfer-encoding: chunked" if upload.chunked else f"content-length: {len(upload.body)}"
            fields = "\r\n".join(("host: pools", "content-type: application/json", framing, *upload.fields))
            writer.write(f"POST {upload.path} HTTP/1.1\r\n{fields}\r\n\r\n".encode())
            await _send(writer, upload, 0, middle)
        finally:
            await half_way.wait()
            await half_way.wait()
        await _send(writer, upload, middle, len(upload.body))
        if upload.chunked:
            writer.write(b"0\r\n\r\n")
    except ConnectionError:
        pass  # refused early; the response gives the reason
    try:
        async with asyncio.timeout(TIMEOUT_S):
            head_bytes = await reader.readuntil(b"\r\n\r\n")
    except (OSError, asyncio.IncompleteReadError):
        return Outcome(upload, 0)
    finally:
        writer.close()
    return _outcome(upload, head_bytes.decode())


async def _send(writer: asyncio.StreamWriter, upload: Upload, start: int, end: int) -> None:
    """Send a part of the body without waiting long: a router that holds the body must not block other uploads."""
    for at in range(start, end, PIECE_BYTES):
        piece = upload.body[at : min(at + PIECE_BYTES, end)]
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if upload.chunked else piece)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TAKEN_WITHIN_S):
            await writer.drain()


def _outcome(upload: Upload, head: str) -> Outcome:
    status_line, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    arrived = headers.get("x-body-sha256")
    intact = None if arrived is None else arrived == sha256(upload.body).hexdigest()
    status = int(status_line.split()[1])
    return Outcome(upload, status, headers.get("x-served-by", ""), intact, headers.get("x-body-break", ""))
