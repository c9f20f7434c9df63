"""Writing one response: at once or streamed, compressed or not, and with the fault that was asked for."""

import asyncio
import gzip
import json
from collections.abc import Iterator

from aiohttp import web

from extproc.emulator.compression import encoder_for
from extproc.emulator.faults import Fault
from extproc.emulator.scheduler import Running
from extproc.emulator.settings import Compression
from extproc.emulator.work import Event

__all__ = ["Responder"]


class Responder:
    """Writes the response to one request; `headers` are sent with it, `fault` is what goes wrong."""

    def __init__(self, headers: dict[str, str], compression: Compression) -> None:
        self.headers = headers
        self.fault = Fault()
        self._compression = compression

    async def apply_early_fault(self, request: web.Request) -> None:
        """Apply the part of the fault that precedes the response. Raises Refusal for statuses from 300 on."""
        if self.fault.slow_s:
            await asyncio.sleep(self.fault.slow_s)
        if refusal := self.fault.refusal():
            raise refusal
        if self.fault.status and request.transport is not None:
            request.transport.write(b"HTTP/1.1 %d Interim\r\nlink: </style>\r\n\r\n" % self.fault.status)

    async def json(self, request: web.Request, value: object) -> web.StreamResponse:
        """Answer with JSON."""
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
        headers = self.headers | {"content-type": "application/json"}
        match self.fault.flag:
            case "broken-json":
                body = body[: len(body) // 2]
            case "truncated-gzip":
                body = gzip.compress(body)
                body, headers["content-encoding"] = body[: len(body) // 2], "gzip"
            case "die":
                return await self._die(
                    request, headers | {"content-length": str(len(body))}, body[: len(body) // 2]
                )
        encoder = encoder_for(self._compression, request.headers.get("accept-encoding", ""))
        if encoder is not None and "content-encoding" not in headers:
            headers["content-encoding"] = self._compression.value
            body = encoder.encode(body) + encoder.finish()
        return web.Response(body=body, headers=headers)

    async def stream(self, request: web.Request, events: Iterator[Event], running: Running) -> web.StreamResponse:
        """Answer with server-sent events, each in its own write and after its decode step."""
        headers = self.headers | {"content-type": "text/event-stream; charset=utf-8"}
        compression = Compression.GZIP if self.fault.flag == "truncated-gzip" else self._compression
        encoder = encoder_for(compression, request.headers.get("accept-encoding", ""))
        if encoder is not None:
            headers["content-encoding"] = compression.value
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        try:
            for event in self._with_fault(list(events)):
                if event.decodes:
                    await running.decode()
                await response.write(event.data if encoder is None else encoder.encode(event.data))
            if self.fault.flag == "die":
                _abort(request)
            elif encoder is not None and self.fault.flag != "truncated-gzip":
                await response.write(encoder.finish())
        except ConnectionResetError:  # the client disconnected
            pass
        return response

    def _with_fault(self, events: list[Event]) -> Iterator[Event]:
        match self.fault.flag:
            case "die" | "truncated-gzip":
                yield from events[: len(events) // 2 + 1]
            case "broken-sse":
                for at, event in enumerate(events[:-1]):
                    yield event if at % 2 else event._replace(data=b"data: {]" + event.data[-24:])
                yield events[-1]._replace(data=events[-1].data.rstrip())
            case _:
                yield from events

    async def _die(self, request: web.Request, headers: dict[str, str], body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(body)
        _abort(request)
        return response


def _abort(request: web.Request) -> None:
    """Abort the connection, so that the client sees it break."""
    if request.transport is not None:
        request.transport.abort()
