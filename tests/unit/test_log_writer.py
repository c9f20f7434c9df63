"""Log lines are written by a separate thread, so that logging never blocks."""

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator

import pytest

from extproc.telemetry.log import JsonFormatter
from extproc.telemetry.log_writer import MAX_WAITING, LineWriter


class Pipe:
    """A pipe that a LineWriter writes to, and whose other end the test reads."""

    def __init__(self) -> None:
        self._reads, self.writes = os.pipe()
        self.writer = LineWriter(self.writes)
        self.writer.setFormatter(JsonFormatter())

    def log(self, message: str) -> None:
        """Log a line."""
        self.writer.emit(logging.LogRecord("dualpool", logging.INFO, __file__, 0, message, None, None))

    def lines(self) -> Iterator[dict[str, object]]:
        """Read lines until the writing end is closed."""
        with os.fdopen(self._reads) as reading:
            yield from map(json.loads, reading)

    def leave(self) -> None:
        """Close the reading end."""
        os.close(self._reads)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the writer wait for its reader, however slow the machine is."""
    monkeypatch.setattr("extproc.telemetry.log_writer.FLUSHED_WITHIN_S", 60.0)


def test_lines_come_in_order() -> None:
    """All lines logged before the writer is closed are written."""
    pipe = Pipe()
    for number in range(100):
        pipe.log(str(number))
    pipe.writer.close()
    os.close(pipe.writes)
    assert [str(number) for number in range(100)] == [line["message"] for line in pipe.lines()]


def test_a_pipe_that_is_not_read_blocks_nobody() -> None:
    """If more is logged than pipe and queue hold, a late reader gets the first lines and the number lost."""
    pipe, logged = Pipe(), 3 * MAX_WAITING
    for number in range(logged):
        pipe.log(f"{number:>200}")

    def end() -> None:
        pipe.writer.close()
        os.close(pipe.writes)

    ending = threading.Thread(target=end)
    ending.start()
    lines = list(pipe.lines())
    ending.join()
    found = [int(str(line["message"])) for line in lines if "dropped" not in line]
    lost = [int(str(line["dropped"])) for line in lines if "dropped" in line]
    assert found == sorted(set(found))
    assert list(range(MAX_WAITING)) == found[:MAX_WAITING]
    assert sum(lost) > 0
    assert len(found) < 1.5 * MAX_WAITING, "the pipe holds a few hundred"
    assert logged == len(found) + sum(lost)


def test_a_pipe_that_another_process_has_made_non_blocking_loses_nothing() -> None:
    """O_NONBLOCK belongs to the pipe, whoever sets it. Lines that do not fit wait, as they do without it."""
    pipe, messages = Pipe(), [f"{number:>2000}" for number in range(200)]
    os.set_blocking(pipe.writes, False)
    for message in messages:
        pipe.log(message)

    def end() -> None:
        pipe.writer.close()
        os.close(pipe.writes)

    ending = threading.Thread(target=end)
    ending.start()
    assert messages == [line["message"] for line in pipe.lines()]
    ending.join()


def test_a_line_that_is_logged_while_another_one_is_being_logged_waits_for_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A destructor may run, fail and be logged anywhere in the code that logs, on the same thread."""
    pipe = Pipe()
    places: list[str] = []

    def anywhere(_frame: object, event: str, _argument: object) -> None:
        places.append(event)
        sys.setprofile(None)
        pipe.log("inner")
        sys.setprofile(anywhere)

    def log() -> None:
        sys.setprofile(anywhere)
        pipe.log("outer")
        sys.setprofile(None)

    logging_thread = threading.Thread(target=log, daemon=True)
    logging_thread.start()
    logging_thread.join(20)
    assert not logging_thread.is_alive()
    pipe.writer.close()
    os.close(pipe.writes)
    messages = [line["message"] for line in pipe.lines()]
    assert len(places) > len("emit, format and more")
    assert ["inner"] * len(places) == [each for each in messages if each != "outer"]
    assert 1 == messages.count("outer")


def test_a_writer_that_has_ended_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the exit Python flushes and closes all handlers, also those that are closed."""
    monkeypatch.setattr("extproc.telemetry.log_writer.FLUSHED_WITHIN_S", 0.0)
    pipe = Pipe()
    pipe.writer.close()
    pipe.writer._thread.join(60)
    pipe.writer.flush()
    assert pipe.writer._waiting.empty()
    os.close(pipe.writes)
    assert [] == list(pipe.lines())


def test_a_closed_reader_is_not_an_error() -> None:
    """The lines are lost, and nothing is raised."""
    pipe = Pipe()
    pipe.leave()
    for number in range(10):
        pipe.log(str(number))
    pipe.writer.flush()
    assert pipe.writer._waiting.empty()
    pipe.writer.close()
    os.close(pipe.writes)


def test_a_record_that_cannot_be_formatted_is_reported_and_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    """The next record is still written."""
    pipe = Pipe()
    pipe.writer.emit(logging.LogRecord("dualpool", logging.INFO, __file__, 0, "%d", ("x",), None))
    pipe.log("told")
    pipe.writer.close()
    os.close(pipe.writes)
    assert ["told"] == [line["message"] for line in pipe.lines()]
    assert "Logging error" in capsys.readouterr().err
