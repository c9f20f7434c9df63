import asyncio
import json
import zlib
from base64 import b64encode
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any, TypeVar

import anthropic
import brotli
import httpx
import openai
import pytest

from extproc.emulator import Emulator, EmulatorSettings
from extproc.emulator.settings import Compression, TokenizerName
from extproc.emulator.tokenizers import ByteRule
from tests.plain import NO_AUTHORITIES

T = TypeVar("T")
CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 6}


def with_pool(scenario: Callable[[Emulator, httpx.AsyncClient], Awaitable[T]], **settings: Any) -> T:
    """Run a scenario against an emulated pool on a free port."""

    async def run() -> T:
        defaults: dict[str, Any] = {
            "model": "m",
            "max_model_len": 1000,
            "name": "tiny",
            "tokenizer": TokenizerName.BYTES,
        }
        emulator = Emulator(EmulatorSettings(**defaults | {"faults": True} | settings))
        await emulator.start()
        try:
            async with httpx.AsyncClient(base_url=emulator.url, timeout=30, verify=NO_AUTHORITIES) as client:
                return await scenario(emulator, client)
        finally:
            await emulator.stop()

    return asyncio.run(run())


def post(body: object, path: str = CHAT, headers: dict[str, str] | None = None, **settings: Any) -> httpx.Response:
    """Send one request to a pool."""

    async def scenario(_: Emulator, client: httpx.AsyncClient) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await client.post(
            path, content=content, headers={"content-type": "application/json"} | (headers or {})
        )

    return with_pool(scenario, **settings)


def events_of(response: httpx.Response) -> list[Any]:
    """Return the decoded events of a stream, without the end mark."""
    lines = (line.removeprefix("data: ") for line in response.text.split("\n") if line.startswith("data: "))
    return [json.loads(line) for line in lines if line != "[DONE]"]


def test_openai_client_is_served() -> None:
    """The openai client gets responses from every API, streamed and not, with the right usage."""

    async def scenario(emulator: Emulator, _: httpx.AsyncClient) -> list[tuple[int, int]]:
        async with openai.AsyncOpenAI(base_url=f"{emulator.url}/v1", api_key="none", max_retries=0) as client:
            messages: Any = HELLO["messages"]
            chat = await client.chat.completions.create(model="m", messages=messages, max_tokens=6, n=2)
            chunks = [
                chunk
                async for chunk in await client.chat.completions.create(
                    model="m", messages=messages, max_tokens=6, stream=True, stream_options={"include_usage": True}
                )
            ]
            text = await client.completions.create(model="m", prompt=[1, 2, 3], max_tokens=4)
            whole = await client.responses.create(model="m", input="Hello there", max_output_tokens=5)
            stream = await client.responses.create(
                model="m", input="Hello there", max_output_tokens=5, stream=True
            )
            last = [event async for event in stream][-1]
            vectors = await client.embeddings.create(model="m", input=["one", "two three"])
        assert len(chat.choices) == 2
        assert len(vectors.data) == 2
        assert last.type == "response.completed"
        usages = (chat.usage, chunks[-1].usage, text.usage)
        parts = [(each.prompt_tokens, each.completion_tokens) for each in usages if each is not None]
        responses = (whole.usage, last.response.usage)
        parts += [(each.input_tokens, each.output_tokens) for each in responses if each is not None]
        return [*parts, (vectors.usage.prompt_tokens, 0)]

    chat_tokens = ByteRule().count("user\nHello there") + 3 + ByteRule().count("assistant\n") + 1
    assert with_pool(scenario) == [(chat_tokens, 12), (chat_tokens, 6), (3, 4)] + [(chat_tokens, 5)] * 2 + [(3, 0)]


def test_anthropic_client_is_served() -> None:
    """The anthropic client gets the same usage from streamed and non-streamed responses."""

    async def scenario(emulator: Emulator, _: httpx.AsyncClient) -> list[tuple[int, int, str | None]]:
        request: Any = {"model": "m", "max_tokens": 5, "messages": HELLO["messages"]}
        async with anthropic.AsyncAnthropic(base_url=emulator.url, api_key="none", max_retries=0) as client:
            whole = await client.messages.create(**request)
            async with client.messages.stream(**request) as stream:
                streamed = await stream.get_final_message()
        return [
            (each.usage.input_tokens, each.usage.output_tokens, each.stop_reason) for each in (whole, streamed)
        ]

    whole, streamed = with_pool(scenario)
    assert whole == streamed
    assert whole[1:] == (5, "max_tokens")


def test_responses_name_the_pool_and_the_hash_of_the_body() -> None:
    """Response headers name the pool and the hash of the body as received, also in an error response."""
    for body in (json.dumps(HELLO).encode(), b'{"messages": \xff'):
        response = post(body)
        assert response.headers["x-served-by"] == "tiny"
        assert response.headers["x-body-sha256"] == sha256(body).hexdigest()


def test_a_stream_is_one_event_per_token() -> None:
    """A stream has the role, one event per token, the finish reason, usage if requested, and the end marker."""
    response = post(HELLO | {"stream": True, "stream_options": {"include_usage": True}})
    events = events_of(response)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert [event["choices"][0]["finish_reason"] for event in events[:-1]] == [None] * 6 + ["length"]
    assert events[-1]["usage"]["completion_tokens"] == 6
    assert response.text.endswith("data: [DONE]\n\n")


def test_a_stream_without_include_usage_has_no_usage() -> None:
    """A stream contains usage only if the request asked for it, which options of another kind do not."""
    streamed = HELLO | {"stream": True}
    for options in (None, {}, {"continuous_usage_stats": True}):
        assert not any("usage" in event for event in events_of(post(streamed | {"stream_options": options})))


def test_a_prompt_that_is_too_long_gets_the_error_format_of_the_api() -> None:
    """A prompt over the context limit gets vLLM's 400; Anthropic's endpoint has its own error object."""
    long = [{"role": "user", "content": "word " * 1100}]
    error = post(HELLO | {"messages": long}).json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("BadRequestError", "input_tokens", 400)
    assert error["message"].startswith(
        "This model's maximum context length is 1000 tokens. However, your prompt contains at least 1001 input"
    )
    other = post({"model": "m", "max_tokens": 6, "messages": long}, path="/v1/messages").json()
    assert (other["type"], other["error"]["type"]) == ("error", "BadRequestError")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[" * 20_000, b"null", b"[]", b'{"messages": "\xff"}', b'{"messages": [], "max_tokens": NaN}'],
    ids=lambda body: repr(body[:20]),
)
def test_bad_bodies_are_refused_with_400(body: bytes) -> None:
    """A body that is not a JSON object with the API's types gets a 400 with an error object."""
    response = post(body)
    assert (response.status_code, response.json()["error"]["type"]) == (400, "Bad Request")


def test_a_compressed_request_is_not_decompressed() -> None:
    """A gzip request body is hashed as received and refused as invalid JSON, as by vLLM."""
    body = zlib.compress(json.dumps(HELLO).encode(), wbits=31)
    response = post(body, headers={"content-encoding": "gzip"})
    assert response.status_code == 400
    assert response.headers["x-body-sha256"] == sha256(body).hexdigest()


def test_an_unknown_model_is_not_found() -> None:
    """A request for a model that is not served gets a 404."""
    error = post(HELLO | {"model": "other"}).json()["error"]
    assert (error["code"], error["message"]) == (404, "The model `other` does not exist.")


def test_a_path_prefix_before_v1_is_allowed() -> None:
    """An endpoint may be mounted under a path prefix."""
    assert post(HELLO, path="/models/llama" + CHAT).status_code == 200


def test_large_bodies_do_not_delay_other_requests() -> None:
    """Small requests are served while 20 MB are being refused; the large body is refused without tokenizing it."""

    async def scenario(_: Emulator, client: httpx.AsyncClient) -> tuple[int, str, list[int]]:
        large = json.dumps({"messages": [{"role": "user", "content": "word " * 4_000_000}]})
        waiting = asyncio.create_task(
            client.post(CHAT, content=large, headers={"content-type": "application/json"})
        )
        small = [(await client.post(CHAT, json=HELLO)).status_code for _ in range(5)]
        refused = await waiting
        return refused.status_code, refused.json()["error"]["param"], small

    assert with_pool(scenario, max_model_len=8192) == (400, "input_text", [200] * 5)


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.DEFLATE, Compression.BROTLI])
@pytest.mark.parametrize("stream", [False, True])
def test_compressed_responses_decode_to_the_plain_ones(compression: Compression, stream: bool) -> None:  # noqa: FBT001
    """A compressed response, streamed or not, decodes to what a client that accepts no encoding gets."""

    async def scenario(_: Emulator, client: httpx.AsyncClient) -> tuple[str | None, bytes, bytes]:
        body = HELLO | {"stream": stream}
        async with client.stream(
            "POST", CHAT, json=body, headers={"accept-encoding": compression.value}
        ) as response:
            encoded = b"".join([chunk async for chunk in response.aiter_raw()])
        plain = await client.post(CHAT, json=body, headers={"accept-encoding": "identity"})
        return response.headers.get("content-encoding"), encoded, plain.content

    encoding, encoded, plain = with_pool(scenario, compression=compression)
    decoded = {
        Compression.GZIP: lambda data: zlib.decompress(data, wbits=31),
        Compression.DEFLATE: zlib.decompress,
        Compression.BROTLI: brotli.decompress,
    }[compression](encoded)
    assert encoding == compression.value
    assert len(decoded) == len(plain)


def test_received_requests_can_be_inspected() -> None:
    """A test in the same process can inspect the requests that reached the pool."""

    async def scenario(emulator: Emulator, client: httpx.AsyncClient) -> None:
        response = await client.post(CHAT, json=HELLO, headers={"X-Mark": "here"})
        received = emulator.received[-1]
        assert (received.path, received.headers["x-mark"]) == (CHAT, "here")
        assert received.body_sha256 == response.headers["x-body-sha256"]

    with_pool(scenario)


def test_other_pages_are_as_in_vllm() -> None:
    """Models, health and metrics have the same paths as in vLLM."""

    async def scenario(_: Emulator, client: httpx.AsyncClient) -> None:
        card = (await client.get("/v1/models")).json()["data"][0]
        assert (card["id"], card["max_model_len"]) == ("m", 1000)
        assert (await client.get("/health")).status_code == 200
        assert 'vllm:num_requests_running{engine="0",model_name="m"} 0.0' in (await client.get("/metrics")).text

    with_pool(scenario)


def with_fault(fault: str, **fields: Any) -> httpx.Response:
    """Send a request that asks for a fault."""
    return post(HELLO | fields, headers={"x-emulate-fault": fault})


def test_faults_take_effect_only_when_allowed() -> None:
    """A pool started without faults serves a request that asks for a fault like any other."""
    assert post(HELLO, headers={"x-emulate-fault": "status=503"}, faults=False).status_code == 200


def test_an_unknown_fault_is_refused() -> None:
    """A misspelt fault gets a 400, so that no test passes by mistake."""
    assert with_fault("brokn-json").status_code == 400


def test_broken_json_ends_in_the_middle() -> None:
    """The fault broken-json sends half a response as if it were complete."""
    with pytest.raises(json.JSONDecodeError):
        with_fault("broken-json").json()


def test_broken_sse_cannot_be_decoded() -> None:
    """The fault broken-sse sends events that are not JSON."""
    with pytest.raises(json.JSONDecodeError):
        events_of(with_fault("broken-sse", stream=True))


@pytest.mark.parametrize(
    ("fault", "factor"), [("usage=zero", 0), ("usage=negative", -1), ("usage=million", 10**6)]
)
def test_usage_faults_change_only_the_reported_usage(fault: str, factor: int) -> None:
    """The usage faults multiply the reported usage, but neither the output nor the true count in the header."""
    right, wrong = post(HELLO), with_fault(fault)
    reported, truth = wrong.json()["usage"]["prompt_tokens"], int(wrong.headers["x-prompt-tokens"])
    assert reported == truth * factor
    assert right.json()["usage"]["prompt_tokens"] == truth
    assert wrong.json()["choices"] == right.json()["choices"]


@pytest.mark.parametrize("stream", [False, True])
def test_truncated_gzip_stops_in_the_middle(stream: bool) -> None:  # noqa: FBT001
    """The fault truncated-gzip sends only the beginning of a compressed response."""

    async def scenario(_: Emulator, client: httpx.AsyncClient) -> bytes:
        headers = {"x-emulate-fault": "truncated-gzip", "accept-encoding": "gzip"}
        async with client.stream("POST", CHAT, json=HELLO | {"stream": stream}, headers=headers) as response:
            return b"".join([chunk async for chunk in response.aiter_raw()])

    decoder = zlib.decompressobj(wbits=31)
    assert decoder.decompress(with_pool(scenario))
    assert not decoder.eof


@pytest.mark.parametrize("stream", [False, True])
def test_die_closes_the_connection(stream: bool) -> None:  # noqa: FBT001
    """The fault die closes the connection in the middle of a response."""
    with pytest.raises(httpx.RemoteProtocolError):
        with_fault("die", stream=stream)


@pytest.mark.parametrize("status", [302, 429, 500, 503])
def test_the_status_fault_sets_the_status(status: int) -> None:
    """The fault status=N responds with status N."""
    assert with_fault(f"status={status}").status_code == status


def test_an_interim_status_comes_before_the_response() -> None:
    """The fault status=1xx sends that status first and then the real response."""

    async def scenario(emulator: Emulator, _: httpx.AsyncClient) -> bytes:
        host, port = emulator.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body = json.dumps(HELLO).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
        fault = f"x-emulate-fault: status=103\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + fault.encode() + body)
        response = await reader.read()
        writer.close()
        return response

    response = with_pool(scenario)
    assert response.startswith(b"HTTP/1.1 103 ")
    assert b"HTTP/1.1 200 OK" in response


def test_an_early_status_does_not_wait_for_the_body() -> None:
    """The fault early-status responds as soon as the request headers have arrived."""

    async def scenario(emulator: Emulator, _: httpx.AsyncClient) -> bytes:
        host, port = emulator.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = (
            f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\nx-emulate-fault: early-status=503\r\n\r\n"
        )
        writer.write(head.encode())
        response = await asyncio.wait_for(reader.readuntil(b"\r\n"), 10)
        writer.close()
        return response

    assert with_pool(scenario).startswith(b"HTTP/1.1 503")


def test_images_are_counted_and_not_read_as_text() -> None:
    """An image of a megabyte costs a fixed number of tokens, and the request fits."""
    url = "data:image/jpeg;base64," + b64encode(bytes(1_000_000)).decode()
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    response = post({"messages": [{"role": "user", "content": parts}], "max_tokens": 5})
    assert 260 < response.json()["usage"]["prompt_tokens"] < 300


@pytest.mark.parametrize(
    # The last response is larger than the buffers between server and client, so the server waits for the client.
    ("stream", "speed", "tokens"),
    [(False, 30, 900), (True, 30, 900), (True, None, 40_000)],
    ids=["json", "slow stream", "fast stream"],
)
def test_a_client_that_disconnects_frees_its_slot(
    stream: bool,  # noqa: FBT001
    speed: float | None,
    tokens: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """When a client disconnects during a response, its sequence ends as in vLLM, and nothing is logged."""

    async def running(client: httpx.AsyncClient) -> int:
        metrics = (await client.get("/metrics")).text
        return int(metrics.partition('vllm:num_requests_running{engine="0",model_name="m"} ')[2].partition(".")[0])

    async def scenario(emulator: Emulator, client: httpx.AsyncClient) -> None:
        host, port = emulator.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port), limit=1024)
        body = json.dumps(HELLO | {"stream": stream, "max_tokens": tokens, "ignore_eos": True}).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        writer.write(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        try:
            async with asyncio.timeout(30):
                while await running(client) == 0:
                    pass
                writer.transport.abort()
                while await running(client) == 1:
                    pass
        finally:
            writer.close()

    with_pool(scenario, decode_tokens_per_s=speed, max_model_len=50_000)
    assert not caplog.records
