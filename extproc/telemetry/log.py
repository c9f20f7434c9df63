"""Structured logs: one JSON object per line on stderr; never a body, never a credential.

Exceptions are logged with their traceback once per kind (type and place) and minute: a fault that affects every
request must not flood the log. The same holds for warnings of libraries, by the line that logs them: they repeat
for as long as a server is down. A swap of a model's prices is logged once per model and minute.
"""

import json
import logging
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from extproc.core.errors import ResponseFault
from extproc.core.listener import Listener, Misconfiguration, Observation
from extproc.core.placing.decision import Decision
from extproc.core.placing.policy import Pool
from extproc.core.usage import Overflow
from extproc.telemetry.log_writer import LineWriter

__all__ = ["JsonFormatter", "LogListener", "OncePerMinute", "configure_logging", "set_log_level"]

REPEAT_AFTER_S = 60.0
MAX_KINDS = 256
_OURS = "dualpool"

_HINTS = {
    Misconfiguration.NO_REQUEST_HEADERS: "set request_header_mode: SEND; without headers nothing can be routed",
    Misconfiguration.STREAMED_WITHOUT_FLAG: (
        "request_body_mode: STREAMED needs send_body_without_waiting_for_header_response: true; or use BUFFERED"
    ),
    Misconfiguration.ONLY_OBSERVED: (
        "leave observability_mode out: Envoy ignores the router's replies; to try the router, use its mode: shadow"
    ),
    Misconfiguration.BUFFERED_PARTIAL: (
        "request_body_mode: BUFFERED_PARTIAL routes only bodies that come with their headers; use BUFFERED"
    ),
    Misconfiguration.RESPONSE_BUFFERED: (
        "response_body_mode: use STREAMED; BUFFERED holds streamed responses back, and fails those above its limit"
    ),
    Misconfiguration.NO_RESPONSE_HEADERS: (
        "set response_header_mode: SEND; without its status no response is learned from"
    ),
    Misconfiguration.NO_REQUEST_BODY: "set request_body_mode to STREAMED, BUFFERED or FULL_DUPLEX_STREAMED",
}


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON; fields given as `extra={"fields": {...}}` are added to it.

    `always` are fields of every line.
    """

    def __init__(self, **always: object) -> None:
        super().__init__()
        self._always = always

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its newline."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._always,
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        try:
            return msgspec.json.encode(line, enc_hook=str).decode()
        except UnicodeEncodeError:  # a lone surrogate: JSON can escape it, UTF-8 cannot encode it
            return json.dumps(line, default=str)


class _Kinds:
    """Remembers which kinds were logged within the last minute."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at_s: dict[str, float] = {}

    def is_due(self, kind: str) -> bool:
        """Return whether to log this kind now; if so, remember the time."""
        now = self._clock()
        if now - self._at_s.get(kind, -REPEAT_AFTER_S) < REPEAT_AFTER_S:
            return False
        if len(self._at_s) >= MAX_KINDS:
            self._at_s.clear()
        self._at_s[kind] = now
        return True


class OncePerMinute(logging.Filter):
    """Passes one exception or library warning of each kind per minute, and all other lines of our own."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._kinds = _Kinds(clock)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write the record."""
        error = record.exc_info[1] if record.exc_info else None
        ours = record.name.partition(".")[0] == _OURS
        if record.levelno < logging.WARNING or (ours and error is None):
            return True
        place = f"{record.name} {record.pathname}:{record.lineno}"
        return self._kinds.is_due(place if error is None else f"{place} {_kind(error)}")


def configure_logging(level: str, **always: object) -> None:
    """Log to stderr as JSON, from `level` (debug, info, warning, error) up, with `always` on every line."""
    # A process may have been started without stderr.
    handler = LineWriter(sys.stderr.fileno()) if sys.stderr else logging.NullHandler()
    handler.setFormatter(JsonFormatter(**always))
    handler.addFilter(OncePerMinute(time.monotonic))
    logging.basicConfig(handlers=[handler], force=True)
    set_log_level(level)


def set_log_level(level: str) -> None:
    """Set the lowest level to write: debug, info, warning or error."""
    logging.getLogger().setLevel(level.upper())
    # grpc logs several debug lines per request, none of them useful.
    logging.getLogger("grpc").setLevel(max(logging.INFO, logging.getLogger().level))
    # They log a line each time a pool's server is polled.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


class LogListener(Listener):
    """A Listener that logs what an operator must know, and decisions at level debug."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._log = logging.getLogger(_OURS)
        self._reported: set[Misconfiguration] = set()
        self._kinds = _Kinds(clock)

    def decided(self, decision: Decision) -> None:
        """Log a decision at level debug."""
        if self._log.isEnabledFor(logging.DEBUG):
            budget = decision.budget
            fields = {
                "pool": decision.pool.name,
                "reason": decision.reason,
                "api": decision.api,
                "model": decision.model,
                "budget_tokens": budget and budget.total,
                "budget_bound_tokens": budget and budget.bound,
                "source": decision.estimate and decision.estimate.source,
                "counted_tokens": decision.counted and decision.counted.text_tokens,
                "body_bytes": decision.body_bytes,
                "request_id": decision.head.request_id,
            }
            self._log.debug("decided", extra={"fields": fields})

    def observed(self, observation: Observation) -> None:
        """Log a learned response at level debug, and a swap of a model's prices as a warning.

        Each of the two kinds of swap is logged once per model and minute; the metrics count all of them.
        """
        learning, model = observation.learning, observation.decision.model
        if learning.started_anew or learning.returned:
            what = _REPLACED if learning.started_anew else _RESTORED
            if self._kinds.is_due(f"{what} {model}"):
                self._log.warning(what, extra={"fields": {"model": model}})
        if self._log.isEnabledFor(logging.DEBUG):
            fields = {
                "model": observation.decision.model,
                "prompt_tokens": observation.usage.prompt_tokens,
                "completion_tokens": observation.usage.completion_tokens,
                "ratio": observation.learning.ratio,
                "under_counted": observation.learning.under_counted,
                "clipped": observation.learning.clipped,
                "truncated_by_pool": observation.learning.truncated_by_pool,
                "refused": observation.learning.refused,
                "request_id": observation.decision.head.request_id,
            }
            self._log.debug("observed", extra={"fields": fields})

    def not_learned(self, why: ResponseFault) -> None:
        """Log at level debug; the metric counts it."""
        self._log.debug("response not learned from", extra={"fields": {"cause": why}})

    def overflowed(self, decision: Decision, overflow: Overflow, served_by: Pool) -> None:
        """Log at level debug that a request did not fit a pool: clients cause this, and the metric counts it."""
        fields = {
            "pool": served_by.name,
            "model": decision.model,
            "at_least_prompt_tokens": overflow.at_least_prompt_tokens,
            "request_id": decision.head.request_id,
        }
        self._log.debug("context overflow", extra={"fields": fields})

    def retried(self, decision: Decision) -> None:
        """Log at level debug; the metric counts it."""
        fields = {"pool": decision.pool.name, "request_id": decision.head.request_id}
        self._log.debug("served by a later attempt", extra={"fields": fields})

    def misconfigured(self, what: Misconfiguration) -> None:
        """Log each kind once, with what to change."""
        if what not in self._reported:
            self._reported.add(what)
            self._log.error(
                "the gateway is misconfigured; routing is impossible or unreliable: %s",
                _HINTS[what],
                extra={"fields": {"cause": what}},
            )

    def failed(self, error: Exception) -> None:
        """Log the traceback, once per kind and minute."""
        if self._kinds.is_due(_kind(error)):
            self._log.error("exception in the router's own code; the request continues unchanged", exc_info=error)


_REPLACED = "a model's prices were replaced: most of its usage was unexpected, and new prices predict it better"
_RESTORED = "a model's previous prices were restored: they predict its usage better than the new ones"


def _kind(error: BaseException) -> str:
    """Return type and place, without the message: a client may influence that, and make each one different."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere"
    return f"{type(error).__name__} at {place}"
