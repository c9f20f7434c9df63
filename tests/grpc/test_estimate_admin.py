"""`dualpool estimate --admin`: the estimate that a running router would make with what it has learned."""

import asyncio
import json
import struct
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from extproc.cli.main import main
from tests.grpc.served import App

Router = Callable[..., Any]
SETTINGS = "pools: [{name: small, max_budget_tokens: 900}, {name: large, max_budget_tokens: 50000}]"
IMAGE = "data:image/gif;base64," + b64encode(b"GIF89a" + struct.pack("<HH", 320, 240) + bytes(30)).decode()
WORDS = "What do you see in 12 of these pictures, 你好? "


def chat(text: str, *, image: bool = False) -> bytes:
    """Return the body of a chat request with this text, and optionally an image."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    if image:
        parts.append({"type": "image_url", "image_url": {"url": IMAGE}})
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": parts}], "max_tokens": 40}).encode()


async def decided(stream: Any, body: bytes) -> dict[str, Any]:
    """Send a request; return the dynamic metadata of the router's decision."""
    await stream.headers()
    await stream.body(body)
    decision = await stream.read()
    fields: dict[str, Any] = json_format.MessageToDict(decision.dynamic_metadata)["dualpool"]
    return fields


async def learned(app: App, call: type[Any], body: bytes, prompt_tokens: int) -> None:
    """Send a request and a response with usage, so that the router learns from it."""
    usage = {
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": 3},
        "choices": [{"finish_reason": "stop"}],
    }
    async with grpc.aio.insecure_channel(app.grpc_address) as channel:
        stream = call(channel)
        await decided(stream, body)
        await stream.response_headers()
        await stream.response_body(json.dumps(usage).encode())
        while await stream.read() is not None:
            pass
    await app.calls_over()


async def ask(app: App, call: type[Any], body: bytes) -> dict[str, Any]:
    """Return the router's decision on a request that gets no response, so that nothing is learned from it."""
    async with grpc.aio.insecure_channel(app.grpc_address) as channel:
        return await decided(call(channel), body)


@pytest.mark.parametrize("kind", ["byteclass", "ema"])
def test_the_command_prints_the_routers_own_estimate(
    router: Router, call: type[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """After some exchanges the command prints the router's own estimate, bound, pool and reason.

    The number of exchanges is a multiple of eight: the router updates its scale at every eighth response.
    """
    body = chat(WORDS * 12, image=True)
    (tmp_path / "body.json").write_bytes(body)

    def estimate(*source: str) -> dict[str, Any]:
        assert main(["estimate", str(tmp_path / "body.json"), "--json", *source]) == 0
        response: dict[str, Any] = json.loads(capsys.readouterr().out)["estimate"]
        return response

    async def scenario() -> tuple[dict[str, Any], dict[str, Any]]:
        async with router(f"{SETTINGS}\nestimator: {{kind: {kind}}}") as app:
            for size in range(3, 15):
                await learned(app, call, chat(WORDS * size), 16 * size + 8)
                await learned(app, call, chat(WORDS * size, image=True), 16 * size + 108)
            fields = await ask(app, call, body)
            # In a thread, so that this event loop is not blocked while the command waits for the router.
            return fields, await asyncio.to_thread(estimate, "--admin", f"http://{app.admin_address}")

    fields, answered = asyncio.run(scenario())
    expected = (fields["estimate"], fields["prompt_tokens"], fields["pool"], fields["reason"])
    assert expected == tuple(answered[name] for name in ("budget_bound", "prompt_tokens", "pool", "reason"))
    assert "young" == answered["learned_from"]
    assert estimate()["prompt_tokens"] != answered["prompt_tokens"]
