"""One call per API and kind of response, with the real clients.

Each call reads its response to the end and returns the response's headers.
"""

from collections.abc import Callable, Mapping

from tests.envoy.harness.caller import Caller
from tests.envoy.harness.pools import MODEL

__all__ = ["CALLS", "LONG_TEXT", "SHORT_TEXT", "Call", "chat", "chat_stream"]

Call = Callable[[Caller, str], Mapping[str, str]]

SHORT_TEXT = "The quick brown fox jumps over the lazy dog. " * 8
LONG_TEXT = "The quick brown fox jumps over the lazy dog. " * 600


def chat(caller: Caller, text: str) -> Mapping[str, str]:
    """Ask for a chat completion."""
    raw = caller.openai.chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": text}], max_tokens=16
    )
    assert raw.parse().choices[0].message.content
    return raw.headers


def chat_stream(caller: Caller, text: str) -> Mapping[str, str]:
    """Ask for a chat completion as a stream that ends with usage."""
    raw = caller.openai.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=[{"role": "user", "content": text}],
        max_tokens=16,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(raw.parse())
    assert chunks[-1].usage is not None
    return raw.headers


def completion(caller: Caller, text: str) -> Mapping[str, str]:
    """Ask for a completion."""
    raw = caller.openai.completions.with_raw_response.create(model=MODEL, prompt=text, max_tokens=16)
    assert raw.parse().choices[0].text
    return raw.headers


def completion_stream(caller: Caller, text: str) -> Mapping[str, str]:
    """Ask for a completion as a stream that ends with usage."""
    raw = caller.openai.completions.with_raw_response.create(
        model=MODEL, prompt=text, max_tokens=16, stream=True, stream_options={"include_usage": True}
    )
    assert list(raw.parse())[-1].usage is not None
    return raw.headers


def embedding(caller: Caller, text: str) -> Mapping[str, str]:
    """Ask for an embedding."""
    raw = caller.openai.embeddings.with_raw_response.create(model=MODEL, input=text)
    assert raw.parse().data
    return raw.headers


def response(caller: Caller, text: str) -> Mapping[str, str]:
    """Ask for a response."""
    raw = caller.openai.responses.with_raw_response.create(model=MODEL, input=text, max_output_tokens=16)
    assert raw.parse().output_text
    return raw.headers


def response_stream(caller: Caller, text: str) -> Mapping[str, str]:
    """Ask for a response as a stream."""
    raw = caller.openai.responses.with_raw_response.create(
        model=MODEL, input=text, max_output_tokens=16, stream=True
    )
    assert list(raw.parse())[-1].type in ("response.completed", "response.incomplete")
    return raw.headers


def message(caller: Caller, text: str) -> Mapping[str, str]:
    """Ask for an Anthropic message."""
    raw = caller.anthropic.messages.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": text}], max_tokens=16
    )
    assert raw.parse().content
    return raw.headers


def message_stream(caller: Caller, text: str) -> Mapping[str, str]:
    """Ask for an Anthropic message as a stream."""
    raw = caller.anthropic.messages.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": text}], max_tokens=16, stream=True
    )
    assert list(raw.parse())[-1].type == "message_stop"
    return raw.headers


CALLS: tuple[Call, ...] = (
    chat,
    chat_stream,
    completion,
    completion_stream,
    embedding,
    response,
    response_stream,
    message,
    message_stream,
)
