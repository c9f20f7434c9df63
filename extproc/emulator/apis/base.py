"""The parts that all APIs share. pydantic checks the types of requests in its lax mode, as in vLLM.

"16" and 16.0 are read as 16, but 16.5, NaN and "many" are refused with 400; unknown fields are ignored.
"""

import json
from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from extproc.emulator.refusals import Refusal, bad_parameter, bad_request
from extproc.emulator.work import Event, Job, Work

__all__ = ["DONE", "Api", "Body", "check_counts", "sse", "validated"]

MAX_SEQUENCES = 1024
DONE = Event(b"data: [DONE]\n\n")


class Body(BaseModel):
    """A JSON object in a request."""

    model_config = ConfigDict(extra="allow")


class Api(Protocol):
    """One endpoint: reads its requests and builds its responses."""

    path: str

    def read(self, data: object) -> Work:
        """Read a decoded body. Raises Refusal."""
        ...

    def response(self, job: Job) -> dict[str, Any]:
        """Return the JSON response."""
        ...

    def events(self, job: Job) -> Iterator[Event]:
        """Return the streamed response."""
        ...

    def refusal(self, refusal: Refusal) -> dict[str, object]:
        """Return the body of a refusal."""
        ...


B = TypeVar("B", bound=Body)


def validated(kind: type[B], data: object) -> B:
    """Check the types of a body. Raises Refusal that lists each error and its location."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        lines = [f"  {each | {'loc': ('body', *each['loc'])}}" for each in details]
        raise bad_request("\n".join([f"{len(lines)} validation error(s):", *lines])) from None


def check_counts(work: Work) -> Work:
    """Return `work` if its counts are in range. Raises Refusal."""
    if work.max_tokens is not None and work.max_tokens < 1:
        raise bad_parameter(work.limit_param, work.max_tokens, "must be at least 1")
    if not 1 <= work.n <= MAX_SEQUENCES:
        raise bad_parameter("n", work.n, f"must be at least 1 and at most {MAX_SEQUENCES}")
    if work.truncate_prompt_tokens is not None and work.truncate_prompt_tokens < -1:
        raise bad_parameter("truncate_prompt_tokens", work.truncate_prompt_tokens, "must be at least -1")
    return work


def sse(value: object, *, event: str = "", decodes: bool = False) -> Event:
    """Return one server-sent event with JSON data."""
    name = f"event: {event}\n" if event else ""
    return Event(f"{name}data: {json.dumps(value, ensure_ascii=False)}\n\n".encode(errors="replace"), decodes)
