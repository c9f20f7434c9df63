"""A pool that reads every body completely and reports in response headers what it received.

Run: python -m bench.numbered_pool NAME; it prints its address. `x-body-sha256` is the body's hash, `x-body-break`
the first gap or repetition in its numbered words (see numbered.py).
"""

import asyncio
import json
import sys
from hashlib import sha256

from aiohttp import web

from bench.numbered import break_in

__all__ = ["main"]

MAX_BODY_BYTES = 256 << 20
USAGE = {"prompt_tokens": 20_000, "completion_tokens": 4, "total_tokens": 20_004}
MESSAGE = {"role": "assistant", "content": "All of it."}
RESPONSE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
    "usage": USAGE,
}


async def main(name: str) -> None:
    """Serve until killed."""
    response = json.dumps(RESPONSE).encode()

    async def respond(request: web.Request) -> web.Response:
        body = await request.read()
        said = {"x-served-by": name, "x-body-sha256": sha256(body).hexdigest(), "x-body-break": break_in(body)}
        return web.Response(body=response, headers=said, content_type="application/json")

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_route("*", "/{path:.*}", respond)
    runner = web.AppRunner(app, access_log=None, auto_decompress=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    print(f"{host}:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
