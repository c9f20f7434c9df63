"""Several trace files are one workload: on one clock if their times are absolute, and with a note if not known."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from extproc.core.errors import ConfigurationError
from extproc.planning.workload.arrivals import check_arrivals
from extproc.planning.workload.inputs import load_day, load_traces
from extproc.planning.workload.lengths import Lengths

MIDNIGHT = datetime(2024, 1, 1, tzinfo=UTC)
OVERLAID = (
    "The times of am.csv and pm.csv are relative and overlap: their requests are taken to arrive in the same "
    "period, not one file after the other."
)


def write(path: Path, times: list[str]) -> str:
    """Write a trace of requests at these times, each with a prompt length of its own."""
    rows = [f"{time},{100 + index},20\n" for index, time in enumerate(times)]
    path.write_text("timestamp,input_tokens,output_tokens\n" + "".join(rows))
    return str(path)


def at(*hours: float) -> list[str]:
    """Return dates at hours since midnight."""
    return [(MIDNIGHT + timedelta(hours=hour)).isoformat() for hour in hours]


def loaded(folder: Path, morning: list[str], evening: list[str]) -> Lengths:
    """Write two files and read them as one trace."""
    return load_traces([write(folder / "am.csv", morning), write(folder / "pm.csv", evening)])


def arrivals(lengths: Lengths) -> list[float]:
    """Return the arrival times, rounded to milliseconds."""
    assert lengths.arrival_s is not None
    return [round(each, 3) for each in lengths.arrival_s.tolist()]


def test_two_halves_of_a_day_are_the_day(tmp_path: Path) -> None:
    """Files with dates give the same lengths, times and load over the day as one file with all their rows, in
    whichever order they are named.
    """
    hours = np.linspace(0.01, 23.9, 4_000).tolist()
    parts = [write(tmp_path / "am.csv", at(*hours[:1_500])), write(tmp_path / "pm.csv", at(*hours[1_500:]))]
    whole = load_traces([write(tmp_path / "day.csv", at(*hours))])
    day = load_day("trace", whole)
    assert day is not None
    for paths in (parts, parts[::-1]):
        joined = load_traces(paths)
        assert arrivals(joined) == arrivals(whole)
        again = load_day("trace", joined)
        assert again is not None
        assert (again.shares, joined.note) == (day.shares, "")


@pytest.mark.parametrize("second", [at(1, 2.5), ["1704070800", "1704076200"]])
def test_absolute_times_keep_the_distance_between_the_files(tmp_path: Path, second: list[str]) -> None:
    """Dates and seconds since 1970 are one clock: files stay as far apart, or overlap, as they did."""
    joined = loaded(tmp_path, at(0.5, 2), second)
    assert [0, 1_800, 5_400, 7_200] == arrivals(joined)
    assert [100, 100, 101, 101] == joined.prompt.tolist()
    assert joined.note == ""


def test_arrivals_with_a_long_gap_are_refused(tmp_path: Path) -> None:
    """Between traces of two months nothing arrives, and the rest would arrive at hundreds of times the rate."""
    months = loaded(tmp_path, at(*np.linspace(0, 1, 20)), at(*np.linspace(700, 701, 20)))
    with pytest.raises(ConfigurationError, match="nothing arrives for 699 of its 701 hours"):
        check_arrivals(months)
    weekend = loaded(tmp_path, at(*np.linspace(0, 24, 20)), at(*np.linspace(48, 72, 20)))
    assert 40 == len(check_arrivals(weekend))


def test_relative_times_that_go_on_are_taken_as_they_are(tmp_path: Path) -> None:
    """The second part of a trace that counts on from the first is not moved to the start."""
    joined = loaded(tmp_path, ["5", "15"], ["15", "30"])
    assert [0, 10, 10, 25] == arrivals(joined)
    assert joined.note == ""


def test_relative_times_that_overlap_are_overlaid_and_a_note_says_so(tmp_path: Path) -> None:
    """Whether the files follow each other is not in them."""
    joined = loaded(tmp_path, ["0", "43000"], ["0", "43100"])
    assert [0, 0, 43_000, 43_100] == arrivals(joined)
    assert OVERLAID == joined.note
    with pytest.raises(ConfigurationError, match=r"am.csv \+ pm.csv \(overlaid\) covers 12.0 hours"):
        load_day("trace", joined)


def test_dates_and_relative_times_are_each_counted_from_the_first_request(tmp_path: Path) -> None:
    """They have no common clock, and the note says what was done."""
    joined = loaded(tmp_path, at(0, 1), ["7", "8"])
    assert [0, 0, 1, 3_600] == arrivals(joined)
    assert (
        "Some times of am.csv and pm.csv are dates and others are relative: each file is counted from its first "
        "request, so their requests are taken to arrive in the same period." == joined.note
    )


def test_what_a_file_does_not_contain_is_still_noted_beside_others(tmp_path: Path) -> None:
    """The notes of all files are kept, each sentence once."""
    log = '{"time": "2026-01-02T03:04:05Z", "estimate": 900, "prompt_tokens": 640.0}\n'
    for name in ("a.log", "b.log"):
        (tmp_path / name).write_text(log)
    joined = load_traces([str(tmp_path / "a.log"), str(tmp_path / "b.log"), write(tmp_path / "c.csv", at(0))])
    assert 1 == joined.note.count("Lengths of an access log are the router's estimates")


def test_a_file_without_times_beside_others_is_named(tmp_path: Path) -> None:
    """The times of the others are not used, which --arrivals trace would otherwise only call missing."""
    for name in ("b.csv", "c.csv"):
        (tmp_path / name).write_text("input_tokens,output_tokens\n100,20\n")
    timed, b, c = write(tmp_path / "am.csv", at(0, 1)), str(tmp_path / "b.csv"), str(tmp_path / "c.csv")
    joined = load_traces([timed, b])
    assert (None, 3) == (joined.arrival_s, len(joined))
    assert "There are no times in b.csv: those of the other files are not used." == joined.note
    assert "There are no times in b.csv and c.csv: " in load_traces([b, timed, c]).note
    assert "" == load_traces([b, c]).note


def test_a_file_of_one_request_has_its_time(tmp_path: Path) -> None:
    """As the log of a replica that had hardly any requests: those of the others keep theirs."""
    joined = loaded(tmp_path, at(0, 2), at(1))
    assert [0, 3_600, 7_200] == arrivals(joined)
    assert "" == joined.note
    with pytest.raises(ConfigurationError, match="it has no arrival times"):
        check_arrivals(load_traces([write(tmp_path / "alone.csv", at(1))]))
