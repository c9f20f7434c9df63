"""Bodies that tests send, and what the router's replies hold."""

import json
from collections.abc import Callable
from typing import Any

Router = Callable[..., Any]


def chat(**fields: Any) -> bytes:
    """Return a chat request's body."""
    return json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": "How are you?"}], "max_tokens": 50, **fields}
    ).encode()


def mutation(message: Any) -> dict[str, str]:
    """Return the headers that a reply sets."""
    common = message.request_headers.response
    return {option.header.key: option.header.raw_value.decode() for option in common.header_mutation.set_headers}


def echo(message: Any) -> bytes:
    """Return the chunk of the request body that a reply echoes."""
    piece: bytes = message.request_body.response.body_mutation.streamed_response.body
    return piece
