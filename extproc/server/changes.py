"""Changes at the admin port: `POST /state/import` adds a state, `/state/reset` forgets, `/state/undo` restores the
prices that a model had before they were replaced.

They require the token in `Authorization: Bearer`, and respond 403 if no token is configured. Another site's page
cannot make a browser send that header (access.py); there is no cookie and no form. Changes are made one at a time;
the body of one is bounded and must arrive in time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from extproc.core.errors import ConfigurationError
from extproc.state.changing import MAX_STATE_BYTES, Knowledge, NotDone, Undoing
from extproc.state.file import state_in
from extproc.telemetry.state_changes import ChangeOutcome, StateChange, StateChangeMetrics

__all__ = ["Changes"]

BODY_WITHIN_S: Final = 60.0

log = logging.getLogger("dualpool")


class Changes:
    """The routes; `knowledge` is called for each change, because a reload may have switched to another store.

    An undo applies to `undoing`, this router's own processes, whether or not they share what they learn. `changed`
    is called after each attempt: one that failed may have changed something, too.
    """

    def __init__(
        self,
        knowledge: Callable[[], Knowledge],
        undoing: Undoing,
        metrics: StateChangeMetrics,
        changed: Callable[[], None],
    ) -> None:
        self._knowledge = knowledge
        self._undoing = undoing
        self._metrics = metrics
        self._changed = changed
        self._busy = False

    def routes(self, *, allowed: bool) -> list[Route]:
        """Return the routes; if changes are not allowed, they only respond 403."""
        changes = {StateChange.IMPORT: self._import, StateChange.RESET: self._reset, StateChange.UNDO: self._undo}
        return [
            Route(f"/state/{change}", function if allowed else _forbidden, methods=["POST"])
            for change, function in changes.items()
        ]

    async def _import(self, request: Request) -> Response:
        async def apply() -> str:
            data = await _body(request)
            return await run_in_threadpool(lambda: self._knowledge().add(state_in(data)))

        return await self._answer(StateChange.IMPORT, "", apply)

    async def _reset(self, request: Request) -> Response:
        model = _named(request)

        async def apply() -> str:
            if request.url.query and not model:  # a typo must not forget everything
                raise ConfigurationError("request /state/reset to forget everything, or /state/reset?model=NAME")
            return await run_in_threadpool(lambda: self._knowledge().forget(model))

        return await self._answer(StateChange.RESET, model, apply)

    async def _undo(self, request: Request) -> Response:
        model = _named(request)

        async def apply() -> str:
            if not model:
                raise ConfigurationError("request /state/undo?model=NAME")
            return await run_in_threadpool(lambda: self._undoing.undo(model))

        return await self._answer(StateChange.UNDO, model, apply)

    async def _answer(self, change: StateChange, model: str, apply: Callable[[], Awaitable[str]]) -> Response:
        if self._busy:
            return PlainTextResponse("another change is being made; try again\n", HTTPStatus.CONFLICT)
        self._busy = True
        try:
            message, status, outcome = await apply(), HTTPStatus.OK, ChangeOutcome.DONE
        except ConfigurationError as error:
            message, status, outcome = str(error), HTTPStatus.BAD_REQUEST, ChangeOutcome.REFUSED
        except _TooLarge as error:
            message, status, outcome = str(error), HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ChangeOutcome.REFUSED
        except (NotDone, TimeoutError, ClientDisconnect) as error:
            message, outcome = str(error) or "the body did not arrive completely", ChangeOutcome.FAILED
            status = HTTPStatus.SERVICE_UNAVAILABLE
        finally:
            self._busy = False
            self._changed()
        self._metrics.requested(change, outcome)
        level = logging.INFO if outcome is ChangeOutcome.DONE else logging.WARNING
        fields = {"change": change, "outcome": outcome, "model": model, "said": message}
        log.log(level, "a change to learned state was requested at the admin port", extra={"fields": fields})
        return PlainTextResponse(message + "\n", status)


def _named(request: Request) -> str:
    """Return the model if the query is exactly `model=NAME`, otherwise ""."""
    match request.query_params.multi_items():
        case [("model", model)]:
            return model
    return ""


class _TooLarge(Exception):
    """The body is larger than any state."""


async def _body(request: Request) -> bytes:
    too_large = _TooLarge(f"a state has at most {MAX_STATE_BYTES >> 20} MB")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > MAX_STATE_BYTES:
        raise too_large
    data = bytearray()
    async with asyncio.timeout(BODY_WITHIN_S):
        async for chunk in request.stream():
            data += chunk
            if len(data) > MAX_STATE_BYTES:
                raise too_large
    return bytes(data)


async def _forbidden(_request: Request) -> Response:
    return PlainTextResponse("changes require a token, and admin.token_file is not set\n", 403)
