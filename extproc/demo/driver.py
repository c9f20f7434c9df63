"""The demo's client: sends the traffic with the openai package, as a user would, and records the responses."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import openai

from extproc.demo.gateway import REQUEST_MARK
from extproc.demo.outcomes import Outcome
from extproc.demo.workload import MODEL, Ask, Endpoint

__all__ = ["drive", "warm_up"]

CONCURRENCY = 8
TIMEOUT_S = 60.0


async def warm_up(plain_url: str) -> None:
    """Before the run, send a request for each kind of response, bypassing the router.

    The client builds its types when they are first used. That takes tenths of a second, in which it sends nothing;
    the router would take the request for a slow upload and send it to the long pool.
    """
    first = {"model": MODEL, "max_tokens": 1}
    chat = first | {"messages": [{"role": "user", "content": "Hello"}]}
    responses = {"model": MODEL, "input": "Hello", "max_output_tokens": 1}
    arguments = (
        (Endpoint.CHAT, chat),
        (Endpoint.CHAT, chat | {"stream": True}),
        (Endpoint.COMPLETIONS, first | {"prompt": "Hello"}),
        (Endpoint.RESPONSES, responses),
        (Endpoint.RESPONSES, responses | {"stream": True}),
        (Endpoint.EMBEDDINGS, {"model": MODEL, "input": "Hello"}),
    )
    await drive(plain_url, [Ask(0, "", endpoint, each, 1) for endpoint, each in arguments], lambda _: None)


async def drive(url: str, asks: Iterable[Ask], done: Callable[[Outcome], None]) -> list[Outcome]:
    """Send all requests, CONCURRENCY at a time; `done` is called with each outcome."""
    # Envoy is on this machine: a proxy that the environment names cannot reach it.
    direct = openai.DefaultAsyncHttpxClient(trust_env=False)
    async with openai.AsyncOpenAI(
        base_url=f"{url}/v1", api_key="not-needed", max_retries=0, timeout=TIMEOUT_S, http_client=direct
    ) as client:
        places = asyncio.Semaphore(CONCURRENCY)

        async def one(ask: Ask) -> Outcome:
            async with places:
                outcome = await _send(client, ask)
            done(outcome)
            return outcome

        return await asyncio.gather(*map(one, asks))


async def _send(client: openai.AsyncOpenAI, ask: Ask) -> Outcome:
    try:
        raw = await _create(client, ask.endpoint)(
            **ask.arguments, extra_query={REQUEST_MARK: ask.number}, extra_headers=ask.headers
        )
        response = raw.parse()
        completion_tokens, cut = await _read_stream(response) if ask.stream else _read(response)
    except openai.APIStatusError as error:
        return _outcome(ask, error.response, error=error.message)
    except Exception as error:  # noqa: BLE001  (whatever the cause: this request failed)
        return Outcome(ask, status=0, error=f"{type(error).__name__}: {error}")
    return _outcome(ask, raw, completion_tokens=completion_tokens, cut_by_length=cut)


def _create(client: openai.AsyncOpenAI, endpoint: Endpoint) -> Callable[..., Any]:
    methods: dict[Endpoint, Callable[..., Any]] = {
        Endpoint.CHAT: client.chat.completions.with_raw_response.create,
        Endpoint.COMPLETIONS: client.completions.with_raw_response.create,
        Endpoint.RESPONSES: client.responses.with_raw_response.create,
        Endpoint.EMBEDDINGS: client.embeddings.with_raw_response.create,
    }
    return methods[endpoint]


def _outcome(ask: Ask, response: Any, **fields: Any) -> Outcome:  # noqa: ANN401  (two kinds of response)
    headers = response.headers
    prompt_tokens = headers.get("x-prompt-tokens")
    return Outcome(
        ask,
        status=response.status_code,
        pool=headers.get("x-served-by", ""),
        attempts=int(headers.get("x-envoy-attempt-count", 1)),
        prompt_tokens=None if prompt_tokens is None else int(prompt_tokens),
        **fields,
    )


def _read(response: Any) -> tuple[int, bool]:  # noqa: ANN401  (four kinds of response)
    """Return the completion tokens, and whether a token limit ended the response."""
    usage = response.usage
    tokens = getattr(usage, "completion_tokens", None) or getattr(usage, "output_tokens", None) or 0
    choices = getattr(response, "choices", ())
    return tokens, any(choice.finish_reason == "length" for choice in choices)


async def _read_stream(response: Any) -> tuple[int, bool]:  # noqa: ANN401  (two kinds of stream)
    """Read a stream to its end; return its completion tokens (0 if not reported), and whether a limit ended it."""
    tokens, cut = 0, False
    async for event in response:
        usage = getattr(event, "usage", None) or getattr(getattr(event, "response", None), "usage", None)
        tokens = getattr(usage, "completion_tokens", None) or getattr(usage, "output_tokens", None) or tokens
        cut = cut or any(choice.finish_reason == "length" for choice in getattr(event, "choices", ()))
    return tokens, cut
