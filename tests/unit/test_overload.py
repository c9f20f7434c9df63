from extproc.server.overload import ENOUGH_REQUESTS, INTERVAL_S, LIMIT_S, LOST_S, TARGET_S, WINDOW_S, Overload


def delayed(overload: Overload, at_s: float, by_s: float) -> None:
    """Set a mark at `at_s` that is handled `by_s` seconds later."""
    overload._next_mark_s = 0.0
    assert overload.wants_mark(at_s)
    assert abs(overload.on_turn(at_s + by_s) - by_s) < 1e-9


def test_a_short_delay_sheds_nothing() -> None:
    """While the loop keeps up, nothing is shed, however long that lasts."""
    overload = Overload()
    for second in range(10):
        delayed(overload, second, TARGET_S / 2)
        assert not overload.sheds(second + 0.5)


def test_a_burst_is_tolerated_and_a_standing_queue_is_shed() -> None:
    """Requests are shed when the delay has been above the target for an interval, and until it falls below."""
    overload = Overload()
    delayed(overload, 1.0, 2 * TARGET_S)
    assert not overload.sheds(1.0 + 2 * TARGET_S)
    delayed(overload, 1.05, 2 * TARGET_S)
    assert overload.sheds(1.01 + INTERVAL_S)
    delayed(overload, 1.2, TARGET_S / 2)
    assert not overload.sheds(1.3)


def test_a_very_long_delay_is_shed_at_once() -> None:
    """This holds even while the mark is still waiting."""
    overload = Overload()
    assert overload.wants_mark(1.0)
    assert not overload.sheds(1.0 + LIMIT_S / 2)
    assert overload.sheds(1.0 + LIMIT_S)
    overload.on_turn(1.0 + LIMIT_S)
    assert overload.sheds(1.0 + LIMIT_S)


def test_there_is_one_mark_at_a_time() -> None:
    """No other mark is set while one waits, or right after it was handled."""
    overload = Overload()
    assert overload.wants_mark(1.0)
    assert not overload.wants_mark(1.9)
    overload.on_turn(1.9)
    assert not overload.wants_mark(1.901)
    assert overload.wants_mark(2.0)


def test_a_lost_mark_is_replaced() -> None:
    """Requests are shed until then; the lost mark may still come."""
    overload = Overload()
    assert overload.wants_mark(1.0)
    assert overload.sheds(1.0 + LOST_S - 0.01)
    assert overload.wants_mark(1.0 + LOST_S)
    assert not overload.sheds(1.0 + LOST_S)
    overload.on_turn(1.0 + LOST_S)
    assert overload.on_turn(3.0) == overload.lag_s == 0


def test_readiness_needs_enough_requests_and_a_majority_of_late_ones() -> None:
    """Half of them being late is tolerated, more is not; old ones do not count."""
    overload = Overload()
    for _ in range(ENOUGH_REQUESTS // 2):
        overload.count(in_time=True, now_s=1.0)
        overload.count(in_time=False, now_s=1.5)
    assert not overload.mostly_late(2.0)
    overload.count(in_time=False, now_s=2.0)
    assert overload.mostly_late(2.0)
    assert not overload.mostly_late(3.0 + WINDOW_S)


def test_a_few_late_requests_do_not_affect_readiness() -> None:
    """A router with hardly any requests stays ready."""
    overload = Overload()
    for _ in range(ENOUGH_REQUESTS - 1):
        overload.count(in_time=False, now_s=1.0)
    assert not overload.mostly_late(1.0)
