"""Plans for a day: the load curve, and the GPU-hours of fleets that follow it."""

from dataclasses import replace
from math import sin, tau
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.errors import ConfigurationError
from extproc.planning.design.day import DayQuestion, day_of, days_of
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.model.costs import Costs
from extproc.planning.model.options import ProfileOptions, setup_of
from extproc.planning.simulation.cache import ResultCache
from extproc.planning.simulation.fleet import PoolUse
from extproc.planning.simulation.runner import FleetEstimate, NotMet
from extproc.planning.simulation.search import FoundFleet
from extproc.planning.simulation.summary import Latency, Summary
from extproc.planning.simulation.task import Design, SearchTask
from extproc.planning.workload.day import STEPS, Day, day_of_trace, parse_day
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.inputs import load_day
from extproc.planning.workload.lengths import Lengths

DESIGN = Design("two pools", (4096, 65_536))
NOTHING = Latency(0, 0.0, 0.0, 0.0, 0.0)
SUMMARY = Summary(NOTHING, (), (), (), (PoolUse("a", 1, 0, 0, 0),), 1, 0, 0, 0, 0, 0, (), 0.1, too_short=False)
LOADS = st.lists(st.floats(0, 100), min_size=2, max_size=24).filter(lambda loads: max(loads) > 1e-3)


def fleet(*instances: int) -> FleetEstimate:
    """Return a fleet as a search returns it."""
    found = FoundFleet(DESIGN, 1, instances, SUMMARY, 1)
    return FleetEstimate(DESIGN, (found,), found.total, float("nan"), found)


def asked(day: Day, start_minutes: float = 0.0, spare: int = 0) -> DayQuestion:
    """Return a question about pools with two GPUs per instance."""
    return DayQuestion(day, start_minutes, Costs(2, spare, None))


PARTS = [fleet(2, 1), fleet(4, 2), fleet(6, 2)]
PEAK = fleet(8, 3)
WAVE = Day(tuple(0.55 + 0.45 * sin(tau * step / STEPS) for step in range(STEPS)), "a wave")


def test_a_fleet_that_starts_at_once_costs_what_the_load_needs() -> None:
    """With half of the day at the peak and half at a quarter of it, the cost is
    the mean of both sizes, without head-room.
    """
    day = Day((1.0,) * (STEPS // 2) + (0.25,) * (STEPS // 2), "steps")
    found = day_of(PEAK, PARTS, asked(day))
    assert found is not None
    assert found.fixed == pytest.approx(24 * 2 * 11)
    assert found.following == found.foreseen == pytest.approx(12 * 2 * 11 + 12 * 2 * 3)
    assert 0.0 == found.head_room


def test_a_pool_shrinks_to_one_instance_and_not_to_none() -> None:
    """Eight instances at a quarter of the peak are three at a twentieth: one that the least load needs, and a
    fifth of the seven others, rather than a fifth of eight.
    """
    day = Day((1.0,) * (STEPS // 2) + (0.05,) * (STEPS // 2), "a quiet night")
    found = day_of(fleet(20), [fleet(8), fleet(13), fleet(17)], asked(day))
    assert found is not None
    assert found.foreseen == pytest.approx(12 * 2 * 20 + 12 * 2 * 3)


def test_spares_are_paid_all_day() -> None:
    """One spare in each of two pools adds two instances for 24 hours."""
    plain, spared = (day_of(PEAK, PARTS, asked(WAVE, 10.0, spare)) for spare in (0, 1))
    assert plain is not None
    assert spared is not None
    assert spared.fixed - plain.fixed == pytest.approx(24 * 2 * 2)
    assert spared.foreseen - plain.foreseen == pytest.approx(24 * 2 * 2)


def test_the_longer_an_instance_takes_to_start_the_more_head_room_is_needed() -> None:
    """On a smooth day, following the load costs more the longer instances take to start,
    and foreseeing it costs no more than that.
    """
    days = [day_of(PEAK, PARTS, asked(WAVE, minutes)) for minutes in (0, 10, 60)]
    rooms = [day.head_room for day in days if day is not None]
    hours = [day.following for day in days if day is not None]
    assert rooms == sorted(rooms, key=lambda room: room or 0.0)
    assert hours == sorted(hours, key=lambda hour: hour or 0.0)
    for day in days:
        assert day is not None
        assert day.following is not None
        assert day.foreseen <= day.following


def test_a_jump_that_no_head_room_covers_has_no_figure() -> None:
    """If the load jumps from almost zero to the peak, following it has no figure, but foreseeing it has one."""
    day = Day((1e-3,) * (STEPS - 12) + (1.0,) * 12, "a jump")
    sizes = [fleet(200, 1), fleet(400, 1), fleet(600, 1)]
    found = day_of(fleet(800, 1), sizes, asked(day, 30.0))
    assert found is not None
    assert found.following is found.head_room is None
    assert found.foreseen < found.fixed


def test_a_design_without_a_fleet_for_a_part_of_the_peak_is_left_out() -> None:
    """No size is guessed for it."""
    assert day_of(PEAK, [*PARTS[:2], NotMet(DESIGN, "why")], asked(WAVE)) is None


@pytest.mark.parametrize(
    ("sizes", "why"),
    [
        ([*PARTS, PEAK], ""),
        ([replace(PARTS[0], not_steady="too short"), *PARTS[1:], PEAK], "at 25% of the peak no fleet is known to"),
        (
            [*PARTS, replace(PEAK, not_steady="too short")],
            "at the peak no fleet is known to be steady (too short).",
        ),
        ([*PARTS[:2], NotMet(DESIGN, "two pools: it is late"), PEAK], "at 75% of the peak, it is late."),
    ],
)
def test_a_day_is_of_sizes_that_are_known_to_be_steady(
    sizes: list[FleetEstimate | NotMet], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A size whose queue may grow through its hour is not counted with, at the peak or below; a note says so."""
    *parts, peak = sizes
    assert isinstance(peak, FleetEstimate)
    monkeypatch.setattr("extproc.planning.design.day.search_each", lambda *_: tuple(parts))
    setup = setup_of(ProfileOptions(), built_in())
    task = SearchTask(DESIGN, setup, Lengths(np.array([1]), np.array([1]), "t"), DeclaredRule.TRUTH, 8.0, 9, 1)
    days, unknown = days_of([(peak, task)], asked(WAVE), 1, ResultCache(None), lambda *_: None)
    if why:
        assert () == days
        assert unknown[0].startswith(f"two pools: what a day of it takes is not known: {why}")
    else:
        assert ((day_of(PEAK, PARTS, asked(WAVE)),), ()) == (days, unknown)


@given(loads=LOADS)
def test_any_curve_is_normalised_to_a_peak_of_one(loads: list[float]) -> None:
    """Curves are normalised whatever their unit and hours."""
    rows = [f"{24 * index / len(loads)},{load}\n" for index, load in enumerate(loads)]
    day = parse_day(rows, "curve")
    assert len(day.shares) == STEPS
    assert max(day.shares) == pytest.approx(1.0)
    assert min(day.shares) >= 0
    assert 0 < day.mean <= 1


@pytest.mark.parametrize("text", ["hour,load\n6,20\n18,100\n", "\ufeff6,20\r\n\r\n18,100\r\n"])
def test_a_curve_is_linear_between_its_hours_and_over_midnight(tmp_path: Path, text: str) -> None:
    """The file may have a header, or a byte order mark and Windows line ends."""
    path = tmp_path / "day.csv"
    path.write_text(text, "utf-8")
    day = load_day(str(path), Lengths(np.array([1]), np.array([1]), "t"))
    assert day is not None
    at = {hour: day.shares[hour * 12] for hour in (0, 6, 12, 18)}
    assert at == pytest.approx({0: 0.6, 6: 0.2, 12: 0.6, 18: 1.0})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1,5\n", "at least two rows"),
        ("1,0\n2,0\n", "not all of them 0"),
        ("1,0\n1.01,5\n1.02,0\n", "all load is between two steps of 5 minutes"),
        ("1,5\n1,6\n", "line 2: '1,6': hours must ascend"),
        ("1,5\n25,6\n", "from 0 to 24"),
        ("1,5\n2,-6\n", "must not be negative"),
        ("1,5\n2,nan\n", "must not be negative"),
        ("1;5\n2,6\n3,7\n", "line 2: '2,6': hour,load is needed"),
        ("1:5\n2,6\n3,7\n", "line 1: '1:5': hour,load is needed"),
        ("1,5\nnoon\n", "line 2: 'noon': hour,load is needed"),
    ],
)
def test_an_impossible_curve_is_refused_with_its_line(text: str, says: str) -> None:
    """The error says what is wrong and in which line."""
    with pytest.raises(ConfigurationError, match=says):
        parse_day(text.splitlines(keepends=True), "day.csv")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The error is like that of any other input."""
    with pytest.raises(ConfigurationError, match=r"--day-curve .*none\.csv: No such file"):
        load_day(str(tmp_path / "none.csv"), Lengths(np.array([1]), np.array([1]), "t"))


def test_a_trace_of_two_days_is_one_day_on_average() -> None:
    """Each day's second half has twice as many arrivals as its first, and so has the averaged day."""
    halves = [(day * 24 + half * 12) * 3600.0 for day in range(2) for half in range(2)]
    times = np.sort(
        np.concatenate(
            [start + np.linspace(0, 12 * 3600 - 1, 3_000 * (1 + i % 2)) for i, start in enumerate(halves)]
        )
    )
    ones = np.ones(len(times), np.int64)
    lengths = Lengths(ones, ones, "two days", times - times[0])
    shares = day_of_trace(lengths).shares
    assert sum(shares[STEPS // 2 :]) / sum(shares[: STEPS // 2]) == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("hours", [20.5, 23.96, 24.0, 27.25, 47.7])
def test_hours_that_a_trace_does_not_cover_are_not_hours_without_load(hours: float) -> None:
    """A trace with the same load throughout is a day with the same load throughout, wherever it ends: what it
    lacks of a day, or of its last five minutes, is not taken for a quiet time.
    """
    times = np.linspace(0, hours * 3600, 300_000)
    ones = np.ones(len(times), np.int64)
    shares = day_of_trace(Lengths(ones, ones, "a part of a day", times)).shares
    assert min(shares) > 0.98


def test_hours_that_a_trace_does_not_cover_lead_from_its_end_to_its_beginning() -> None:
    """A trace of 21 hours that begins at one load and ends at twice that falls back to it in the hours after."""
    gaps = 1 / np.linspace(1, 2, 300_000)
    times = np.cumsum(gaps) * (21 * 3600 / gaps.sum())
    ones = np.ones(len(times), np.int64)
    shares = np.array(day_of_trace(Lengths(ones, ones, "21 hours", times)).shares)
    missing = shares[21 * 12 :]
    assert (np.diff(missing) < 0).all()
    assert missing[len(missing) // 2] == pytest.approx((shares[0] + shares[21 * 12 - 1]) / 2, rel=0.03)


def test_a_trace_of_an_hour_gives_no_day() -> None:
    """The error says how many hours are needed."""
    times = np.linspace(0, 3600, 5_000)
    lengths = Lengths(np.ones(5_000, np.int64), np.ones(5_000, np.int64), "an hour", times)
    for each in (lengths, replace(lengths, arrival_s=None)):
        with pytest.raises(ConfigurationError, match="at least 20 hours"):
            load_day("trace", each)
    assert load_day(None, lengths) is None


def recorded(*parts: tuple[float, float]) -> Lengths:
    """Return a trace that was recorded from each of these hours to the next, one request every four seconds."""
    times = np.concatenate([np.arange(begin * 3600, end * 3600, 4) for begin, end in parts])
    ones = np.ones(len(times), np.int64)
    return Lengths(ones, ones, "in parts", times - times[0])


@pytest.mark.parametrize("mornings", [2, 3, 5])
def test_a_silence_between_traces_is_not_a_quiet_part_of_the_day(mornings: int) -> None:
    """Mornings a week apart do not show what comes in the afternoon, however many they are."""
    lengths = recorded(*((week * 168, week * 168 + 4) for week in range(mornings)))
    with pytest.raises(ConfigurationError, match=r"--day-curve trace: in parts covers 4.0 hours of the day with "):
        day_of_trace(lengths)


def test_a_single_time_far_from_the_others_makes_no_day() -> None:
    """That of year 1, as some programs write a missing one, leaves a trace of an hour as short as it is."""
    times = np.concatenate([[0.0], 6.4e10 + np.linspace(0, 3600, 3_000)])
    ones = np.ones(len(times), np.int64)
    with pytest.raises(ConfigurationError, match=r"an hour covers 1.0 hours of the day"):
        day_of_trace(Lengths(ones, ones, "an hour", times))


def test_days_that_are_apart_are_each_a_day() -> None:
    """Two whole days a week apart are a day without quiet hours; so are two halves of different days."""
    for parts in (((0, 24), (168, 192)), ((0, 12), (84, 96)), ((0, 24), (168, 180), (348, 360))):
        assert min(day_of_trace(recorded(*parts)).shares) > 0.98


def test_a_silence_for_most_of_the_time_is_not_a_quiet_part_of_the_day() -> None:
    """Two mornings in a row may be all that was recorded; a third, or a night without requests, shows the rest."""
    with pytest.raises(ConfigurationError, match="in parts: nothing arrives for 20 of its 28 hours"):
        day_of_trace(recorded((0, 4), (24, 28)))
    for parts in (((0, 16), (24, 40)), ((0, 4), (24, 28), (48, 52))):
        assert min(day_of_trace(recorded(*parts)).shares) == 0


@pytest.mark.parametrize(("hours", "swings", "refused"), [(24, 0.8, True), (12, 0.8, True), (24, 0.1, False)])
def test_ups_and_downs_of_a_trace_do_not_count_beside_those_of_a_file(
    tmp_path: Path,
    hours: int,
    swings: float,
    refused: bool,  # noqa: FBT001
) -> None:
    """A trace whose hours differ is refused as arrivals at the peak of a day; Poisson arrivals of its lengths are
    not, nor is a trace that is about as busy in each hour.
    """
    rng = np.random.default_rng(0)
    at = rng.uniform(0, hours * 3600, 40_000)
    arrival = np.sort(at[rng.random(len(at)) < 1 - swings * np.cos(at / 86_400 * tau) ** 2])
    tokens = np.ones(len(arrival), np.int64)
    lengths = Lengths(tokens, tokens, "t.csv", arrival - arrival[0])
    (tmp_path / "day.csv").write_text("0,1\n12,9\n")
    path = str(tmp_path / "day.csv")
    assert load_day(path, lengths) is not None
    if refused:
        with pytest.raises(ConfigurationError, match=r"busiest of the \d+ hours of t.csv has 1.\d\d times"):
            load_day(path, lengths, as_arrived=True)
    else:
        assert load_day(path, lengths, as_arrived=True) is not None


def test_a_trace_of_an_hour_has_bursts_only(tmp_path: Path) -> None:
    """Its arrivals may be simulated at each load of a day, whatever its bursts."""
    (tmp_path / "day.csv").write_text("0,1\n12,9\n")
    arrival = np.sort(3_700 * np.random.default_rng(0).random(5_000) ** 3)
    tokens = np.ones(5_000, np.int64)
    lengths = Lengths(tokens, tokens, "t", arrival)
    assert load_day(str(tmp_path / "day.csv"), lengths, as_arrived=True) is not None
