"""What the router has to know of one API family; `apis/__init__.py` holds the one table of them."""

from collections.abc import Callable
from dataclasses import dataclass

from extproc.core.facts import Api, RequestFacts
from extproc.core.reading.reader import EventReader
from extproc.core.usage import Usage

__all__ = ["Family"]


@dataclass(frozen=True, slots=True)
class Family:
    """One row of the table.

    `endpoint` is what follows `/v1/` in its path, `paths` are others that it has, whole. `read_request` turns a
    body into facts and raises BodyNotUnderstood; `read_response` finds the usage of a whole JSON response,
    `events` that of a stream (None where there are no streams); both raise ResponseNotUnderstood. With
    `several_prompts` one body may hold many, each a sequence of its own. `operation` is its name in
    OpenTelemetry's conventions for generative AI (gen_ai.operation.name), "" where they have none.
    """

    api: Api
    endpoint: str
    read_request: Callable[[bytes], RequestFacts]
    read_response: Callable[[bytes | bytearray], Usage]
    events: type[EventReader] | None = None
    several_prompts: bool = False
    paths: tuple[str, ...] = ()
    operation: str = ""
