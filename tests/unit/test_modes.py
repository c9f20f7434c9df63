"""Consequences of the modes in which a gateway sends headers and bodies."""

from itertools import product

import pytest

from extproc.core.exchange.modes import BodyMode, Modes
from extproc.core.listener import Misconfiguration

NONE, STREAMED, BUFFERED, PARTIAL, DUPLEX, OTHER = BodyMode


@pytest.mark.parametrize(
    ("mode", "holds", "fault", "doubts"),
    [
        (NONE, True, Misconfiguration.NO_REQUEST_BODY, ()),
        (STREAMED, True, Misconfiguration.STREAMED_WITHOUT_FLAG, ()),
        (BUFFERED, False, None, ()),
        (PARTIAL, False, None, (Misconfiguration.BUFFERED_PARTIAL,)),
        (DUPLEX, True, None, ()),
        (OTHER, True, Misconfiguration.NO_REQUEST_BODY, ()),
    ],
)
def test_which_modes_can_be_routed(
    mode: BodyMode, fault: Misconfiguration | None, doubts: tuple[Misconfiguration, ...], *, holds: bool
) -> None:
    """Headers are held if their reply waits for the body; some modes route no request, or not every one."""
    modes = Modes(mode, STREAMED)
    assert (holds, fault, doubts, mode is DUPLEX) == (
        modes.holds_headers,
        modes.fault,
        modes.doubts,
        modes.full_duplex,
    )
    flagged = Modes(mode, STREAMED, body_without_waiting=True)
    assert (None if mode is STREAMED else fault) == flagged.fault


@pytest.mark.parametrize("mode", BodyMode)
def test_no_mode_can_be_routed_if_replies_are_ignored(mode: BodyMode) -> None:
    """In observability_mode a gateway acts on no reply, whatever it sends."""
    modes = Modes(mode, STREAMED, body_without_waiting=True, replies_ignored=True)
    assert Misconfiguration.ONLY_OBSERVED is modes.fault


@pytest.mark.parametrize(
    ("mode", "readable", "streams", "doubts"),
    [
        (NONE, False, False, ()),
        (STREAMED, True, True, ()),
        (BUFFERED, True, False, (Misconfiguration.RESPONSE_BUFFERED,)),
        (PARTIAL, True, False, (Misconfiguration.RESPONSE_BUFFERED,)),
        (DUPLEX, True, True, ()),
    ],
)
def test_which_modes_can_be_read(
    mode: BodyMode, doubts: tuple[Misconfiguration, ...], *, readable: bool, streams: bool
) -> None:
    """A buffered response cannot be read as a stream, and one that is not sent cannot be read."""
    modes = Modes(BUFFERED, mode)
    assert (readable, streams, doubts) == (modes.response_readable, modes.stream_readable, modes.doubts)
    assert (mode is DUPLEX) == modes.full_duplex


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize(("request_body", "response_body"), list(product(BodyMode, BodyMode)))
def test_heads_of_responses_wait_in_streamed_mode_only(
    request_body: BodyMode, response_body: BodyMode, *, flag: bool
) -> None:
    """Only a gateway that sends streamed bodies at once, and gets none back, sends one while its head waits."""
    modes = Modes(request_body, response_body, body_without_waiting=flag)
    assert (flag and request_body is response_body is STREAMED) == modes.response_without_waiting


def test_modes_are_identified_by_the_gateways_settings() -> None:
    """Derived attributes take no part in comparisons and are not printed."""
    expected = (
        "Modes(request_body=<BodyMode.STREAMED: 1>, response_body=<BodyMode.NONE: 0>, body_without_waiting=True, "
        "replies_ignored=False)"
    )
    assert expected == repr(Modes(STREAMED, NONE, body_without_waiting=True))
    every = [Modes(*pair) for pair in product(BodyMode, BodyMode)]
    assert len(every) == len(set(every))
    assert Modes() == Modes(BUFFERED, BUFFERED, body_without_waiting=False)
