"""Requests that are longer than the long context: servers refuse them, and they are no load."""

from dataclasses import replace

import numpy as np
import pytest

from extproc.core.errors import ConfigurationError
from extproc.planning.design.notes import workload_notes
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.model.analytic import analyse
from extproc.planning.model.options import ProfileOptions, setup_of
from extproc.planning.model.reach import reaching
from extproc.planning.model.setup import MeasuredRates
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths

SETUP = setup_of(ProfileOptions(times="roofline", objective="<=4096: ttft 2s; else: ttft 30s"), built_in())
USUAL = Lengths(np.tile([300, 900, 2_000, 6_000], 500), np.tile([50, 200, 100, 400], 500), "usual")
ONE_HUGE = Lengths(np.append(USUAL.prompt, 9_000_000), np.append(USUAL.output, 3), "one huge")
THRESHOLDS = (1_024, 4_096, 16_384)


def test_a_request_that_every_server_refuses_is_no_load() -> None:
    """One request of nine million tokens among 2,000, refused by every server, adds no instance to any fleet."""
    usual, huge = (analyse(each, 50.0, SETUP, DeclaredRule.TRUTH, THRESHOLDS) for each in (USUAL, ONE_HUGE))
    assert huge.long.instances == usual.long.instances
    assert huge.right_sized.instances == usual.right_sized.instances
    assert huge.right_sized.context_tokens == usual.right_sized.context_tokens
    assert abs(huge.best.instances - usual.best.instances) <= 1  # its pool may need one instance to refuse it


def test_a_request_that_every_server_refuses_asks_for_no_faster_instance() -> None:
    """The prefill of a refused prompt is not held against an instance, though it is the tail of its class."""
    few = Lengths(np.append(np.full(2_000, 500), 9_000_000), np.append(np.full(2_000, 50), 3), "only one is long")
    assert reaching(few, 1.0, SETUP).instance == SETUP.instance


def test_a_note_counts_the_requests_that_servers_refuse() -> None:
    """The plan says how many requests are longer than the long context, and nothing where there are none.

    Rates that were measured are those of all requests.
    """
    analysis = analyse(ONE_HUGE, 50.0, SETUP, DeclaredRule.TRUTH, THRESHOLDS)
    text = " ".join(workload_notes(ONE_HUGE, SETUP, analysis))
    assert "1 of 2,001 requests (0.05%) are longer than 65,536 tokens" in text
    assert "--long-context" not in " ".join(
        workload_notes(replace(ONE_HUGE, prompt=ONE_HUGE.prompt % 7_000), SETUP, analysis)
    )
    measured = replace(SETUP, measured=MeasuredRates(1.0, 1.0, 1.0))
    assert "are no load" not in " ".join(workload_notes(ONE_HUGE, measured, analysis))


def test_refused_requests_are_part_of_the_rate() -> None:
    """If every second request is refused, a fleet for 100 requests per second is one for 50 of the others."""
    half = Lengths(
        np.append(USUAL.prompt, np.full(2_000, 70_000)), np.append(USUAL.output, np.full(2_000, 3)), "half refused"
    )
    setup = replace(SETUP, objective=replace(SETUP.objective, success=0.4))
    mixed = analyse(half, 100.0, setup, DeclaredRule.TRUTH, THRESHOLDS)
    usual = analyse(USUAL, 50.0, setup, DeclaredRule.TRUTH, THRESHOLDS)
    assert mixed.long.instances == usual.long.instances
    assert mixed.right_sized.instances == usual.right_sized.instances


@pytest.mark.parametrize(("output", "refused"), [(1_000, False), (1_001, True)])
def test_a_request_as_long_as_the_long_context_is_served(output: int, *, refused: bool) -> None:
    """Prompt and output of 65,536 tokens fit; with one more, and nothing else, there is nothing to plan."""
    longest = Lengths(np.full(10, 64_536), np.full(10, output), "only long ones")
    if refused:
        with pytest.raises(
            ConfigurationError, match=r"only long ones: all requests are longer than 65,536 tokens"
        ):
            analyse(longest, 1.0, SETUP, DeclaredRule.TRUTH, THRESHOLDS)
    else:
        assert analyse(longest, 1.0, SETUP, DeclaredRule.TRUTH, THRESHOLDS).long.instances > 0
