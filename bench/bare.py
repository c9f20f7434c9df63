"""The floor: a grpc.aio server on uvloop that reads the same messages and answers with constants.

It parses nothing and decides nothing. What our server costs beyond it is our own logic.
Run: python -m bench.bare KIND [MESSAGES], KIND released or learned; it prints its address.
"""

import asyncio
import sys
from collections.abc import AsyncIterator

import grpc
import uvloop

from bench import messages
from extproc.core.events import ContinueBody, ContinueHeaders, Phase
from extproc.wire.encode import Encoder, HeaderNames

DECISION = messages.decision_answer()
BODY = Encoder(HeaderNames()).encode(ContinueBody(Phase.REQUEST))
RESPONSE = Encoder(HeaderNames()).encode(ContinueHeaders(Phase.RESPONSE))
Context = grpc.aio.ServicerContext[bytes, bytes]


async def released(_requests: AsyncIterator[bytes], context: Context) -> None:
    """Headers and one body message in, the decision out, closed."""
    await context.read()
    await context.read()
    await context.write(DECISION)


async def learned(_requests: AsyncIterator[bytes], context: Context) -> None:
    """Do the same, kept for the answer's headers and its one body message, closed."""
    await context.read()
    await context.read()
    await context.write(DECISION)
    await context.write(BODY)
    await context.read()
    await context.write(RESPONSE)
    await context.read()


async def main(kind: str) -> None:
    """Serve until killed."""
    server: grpc.aio.Server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 << 20)])
    handler = grpc.stream_stream_rpc_method_handler({"released": released, "learned": learned}[kind])
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(messages.SERVICE, {"Process": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1]))
