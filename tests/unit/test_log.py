"""The contents, the format and the rate of log lines."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from extproc.core.estimator.protocol import Learning
from extproc.core.facts import Api
from extproc.core.listener import Misconfiguration, Observation
from extproc.core.placing.decision import Decision, Mode
from extproc.core.placing.policy import Pool, Reason
from extproc.core.usage import Overflow, Usage
from extproc.telemetry.log import MAX_KINDS, JsonFormatter, LogListener, OncePerMinute, configure_logging

DECISION = Decision(Pool("long", 9), Reason.TOO_LONG, Mode.ENFORCE, routed=False, api=Api.CHAT, model="m")


@dataclass
class Clock:
    """A clock that a test sets."""

    now_s: float = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def raised(error: Exception) -> Exception:
    """Return an exception with the traceback of this line."""
    try:
        raise error
    except type(error) as caught:
        return caught


def raised_elsewhere(error: Exception) -> Exception:
    """Return an exception with the traceback of another line."""
    try:
        raise error
    except type(error) as caught:
        return caught


def test_a_traceback_is_logged_once_per_kind_and_minute(caplog: pytest.LogCaptureFixture) -> None:
    """An exception of the same type and place is not logged again for a minute; another type or place is."""
    clock = Clock()
    listener = LogListener(clock)
    steps = [
        (0.0, raised(KeyError("a")), 1),
        (1.0, raised(KeyError("b")), 1),
        (2.0, raised(ValueError("a")), 2),
        (3.0, raised_elsewhere(KeyError("a")), 3),
        (59.9, raised(KeyError("a")), 3),
        (60.0, raised(KeyError("a")), 4),
    ]
    for now_s, error, lines in steps:
        clock.now_s = now_s
        listener.failed(error)
        assert lines == len(caplog.records)
    assert "Traceback (most recent call last)" in JsonFormatter().format(caplog.records[0])


def test_an_exception_without_a_traceback_is_identified_by_its_type(caplog: pytest.LogCaptureFixture) -> None:
    """Its message does not make it another kind, because a client may influence the message."""
    listener = LogListener(Clock())
    for number in range(9):
        listener.failed(ValueError(f"client {number}"))
    listener.failed(KeyError("client"))
    assert [ValueError, KeyError] == [record.exc_info and record.exc_info[0] for record in caplog.records]


def test_the_number_of_remembered_kinds_is_bounded() -> None:
    """After a thousand kinds of exceptions at most MAX_KINDS are remembered."""
    listener = LogListener(Clock())
    for number in range(1_000):
        listener.failed(type(f"Error{number}", (Exception,), {})())
    assert 0 < len(listener._kinds._at_s) <= MAX_KINDS


def test_warnings_of_libraries_are_written_once_a_minute() -> None:
    """A library's warning and a kind of exception are written once a minute; our own warnings always."""
    clock = Clock()
    once = OncePerMinute(clock)
    written: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: written.append(record.getMessage())  # type: ignore[method-assign]
    handler.addFilter(once)
    # Not registered with logging, so that the handler added here affects no other test.
    library = logging.Logger("opentelemetry.exporter")  # noqa: LOG001
    ours = logging.Logger("dualpool")  # noqa: LOG001
    for logger in (library, ours):
        logger.addHandler(handler)
    for now_s in (0.0, 1.0, 59.0, 61.0):
        clock.now_s = now_s
        library.warning("a collector is away at %s", now_s)
        library.info("asked")
        ours.warning("a worker is replaced")
        ours.error("a job failed", exc_info=raised(KeyError(now_s)))
    assert (2, 4, 4, 2) == tuple(
        sum(line.startswith(words) for line in written)
        for words in ("a collector is away", "asked", "a worker is replaced", "a job failed")
    )


def test_a_scrape_is_not_logged(capfd: pytest.CaptureFixture[str]) -> None:
    """The HTTP client logs each request at level info, and servers are polled every second."""
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    try:
        configure_logging("debug")
        logging.getLogger("httpx").info("HTTP Request: GET http://a/metrics")
        logging.getLogger("httpcore.http11").debug("send_request_headers.started")
        logging.getLogger("httpx").warning("told")
        root.handlers[0].close()
    finally:
        root.handlers[:] = before
    assert ["told"] == [json.loads(line)["message"] for line in capfd.readouterr().err.splitlines()]


def test_a_misconfiguration_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Each kind is logged once, at level error, with the setting to change."""
    listener = LogListener(Clock())
    for what in (*Misconfiguration, *Misconfiguration):
        listener.misconfigured(what)
    causes = [json.loads(JsonFormatter().format(record))["cause"] for record in caplog.records]
    assert list(Misconfiguration) == causes
    assert {"error"} == {record.levelname.lower() for record in caplog.records}
    assert "set request_header_mode: SEND" in caplog.records[0].getMessage()


def test_errors_that_clients_can_cause_are_not_logged_at_level_info(caplog: pytest.LogCaptureFixture) -> None:
    """Requests that are too long for every pool are logged only at level debug; a metric counts them."""
    listener = LogListener(Clock())
    caplog.set_level(logging.INFO)
    listener.overflowed(DECISION, Overflow(9_000), DECISION.pool)
    assert [] == caplog.records
    caplog.set_level(logging.DEBUG)
    listener.overflowed(DECISION, Overflow(9_000), DECISION.pool)
    (line,) = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    assert ("context overflow", "m", 9_000) == (line["message"], line["model"], line["at_least_prompt_tokens"])


def test_a_model_that_was_replaced_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A model whose prices are replaced, or come back, is logged by name; an ordinary response is not."""
    listener = LogListener(Clock())
    learning = Learning(1.0, under_counted=False, bytes_per_token=4.0)
    for each in (learning, replace(learning, started_anew=True), replace(learning, returned=True)):
        listener.observed(Observation(DECISION, DECISION.pool, Usage(100, 3), each))
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    assert [("warning", "m")] * 2 == [(line["level"], line["model"]) for line in lines]
    assert 2 == len({line["message"] for line in lines})


def test_models_that_change_repeatedly_do_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Each of the two messages is logged once a minute per model."""
    clock = Clock()
    listener = LogListener(clock)
    learning = Learning(1.0, under_counted=False, bytes_per_token=4.0)
    other = replace(DECISION, model="n")
    for decision in (DECISION, other):
        for each in [replace(learning, started_anew=True), replace(learning, returned=True)] * 3:
            listener.observed(Observation(decision, decision.pool, Usage(100, 3), each))
    assert 4 == len(caplog.records)
    clock.now_s += 60
    listener.observed(Observation(DECISION, DECISION.pool, Usage(100, 3), replace(learning, returned=True)))
    assert 5 == len(caplog.records)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ('a "quoted"\nline\t\\', 'a "quoted"\nline\t\\'),
        ("\x00\x1b[31m\u2028 你好 🙂", "\x00\x1b[31m\u2028 你好 🙂"),
        ("half a pair: \ud83d", "half a pair: \ud83d"),
        (float("nan"), None),
        (2**70, 2**70),
        (Reason.FITS, "fits"),
        (Path("/a"), "/a"),
        (ValueError("what"), "what"),
        ({"a": [1, None]}, {"a": [1, None]}),
    ],
)
def test_a_record_is_one_line_of_json(value: object, shown: object) -> None:
    """Whatever is logged, the line is a JSON object with time, level, logger and message."""
    record = logging.LogRecord("dualpool", logging.INFO, "f.py", 1, "said %s", ("\n",), None)
    record.fields = {"value": value}
    text = JsonFormatter().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert ("info", "dualpool", "said \n", shown) == (
        line["level"],
        line["logger"],
        line["message"],
        line["value"],
    )
    assert line["time"].endswith("+00:00")
