"""The baseline: a grpc.aio server on uvloop that reads the same messages and replies with constants.

It does not parse or decide anything; what our server costs more is our own logic.
Run: python -m bench.bare KIND REQUEST_MESSAGES, where KIND is released or learned and REQUEST_MESSAGES the number
of messages before the decision, including headers; it prints its address.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import uvloop

from bench import messages
from extproc.core.exchange.events import ContinueBody, ContinueHeaders, Phase
from extproc.core.headers import HeaderNames
from extproc.wire.encode import Encoder

__all__ = ["main"]

DECISION = messages.decision_reply()
REQUEST_BODY, RESPONSE_HEADERS, RESPONSE_BODY = (
    Encoder(HeaderNames()).encode(action)
    for action in (ContinueBody(Phase.REQUEST), ContinueHeaders(Phase.RESPONSE), ContinueBody(Phase.RESPONSE))
)
MAX_MESSAGE_BYTES = 64 << 20
Context = grpc.aio.ServicerContext[bytes, bytes]
Handler = Callable[[AsyncIterator[bytes], Context], Awaitable[None]]


def released(request_messages: int) -> Handler:
    """Return a handler that reads the request, writes the decision, and closes the stream."""

    async def handle(_requests: AsyncIterator[bytes], context: Context) -> None:
        for _ in range(request_messages):
            await context.read()
        await context.write(DECISION)

    return handle


def learned(request_messages: int) -> Handler:
    """Return a handler that also reads the response: headers, one piece of body, and the empty end."""

    async def handle(_requests: AsyncIterator[bytes], context: Context) -> None:
        for _ in range(request_messages):
            await context.read()
        await context.write(DECISION)
        for _ in range(request_messages - 1):
            await context.write(REQUEST_BODY)
        await context.read()
        await context.write(RESPONSE_HEADERS)
        await context.read()
        await context.write(RESPONSE_BODY)
        await context.read()

    return handle


async def main(kind: str, request_messages: int) -> None:
    """Serve until killed."""
    server: grpc.aio.Server = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)])
    handler = grpc.stream_stream_rpc_method_handler(
        {"released": released, "learned": learned}[kind](request_messages)
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(messages.SERVICE, {"Process": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], int(sys.argv[2])))
