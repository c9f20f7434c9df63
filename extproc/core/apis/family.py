"""The description of one API family; `apis/__init__.py` holds the table of all of them."""

from collections.abc import Callable
from dataclasses import dataclass

from extproc.core.facts import Api, RequestFacts
from extproc.core.reading.reader import EventReader
from extproc.core.usage import Usage

__all__ = ["Family"]


@dataclass(frozen=True, slots=True)
class Family:
    """One row of the table.

    `endpoint` is the part after `/v1/` in the path; `paths` are further complete paths. `read_request` turns a
    body into facts and raises BodyNotUnderstood; `read_response` reads the usage from a complete JSON response,
    `events` from a stream (None if streams are not read); both raise ResponseNotUnderstood. With `several_prompts`
    one body may hold many prompts, each a separate sequence. `operation` is the family's name in OpenTelemetry's
    conventions for generative AI (gen_ai.operation.name), "" if they define none.
    """

    api: Api
    endpoint: str
    read_request: Callable[[bytes], RequestFacts]
    read_response: Callable[[bytes | bytearray], Usage]
    events: type[EventReader] | None = None
    several_prompts: bool = False
    paths: tuple[str, ...] = ()
    operation: str = ""
