"""The formats that a plan assumes for weights and KV cache, and what the servers are told of them."""

from dataclasses import replace

import numpy as np
import pytest

from extproc.planning.design.notes import workload_notes
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.model.analytic import analyse
from extproc.planning.model.options import ProfileOptions, setup_of
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths

CATALOGUE = built_in()
FOUR_H100 = ProfileOptions(gpu="h100-80g", tp=4, times="roofline")


def notes_of(options: ProfileOptions) -> str:
    """Return the notes of a plan with these options."""
    lengths = Lengths(np.full(100, 500), np.full(100, 100), "equal requests")
    setup = setup_of(options, CATALOGUE)
    return " ".join(workload_notes(lengths, setup, analyse(lengths, 9, setup, DeclaredRule.TRUTH, (2_048,))))


@pytest.mark.parametrize(("engine", "kv_format"), [("vllm-0.32", "fp8"), ("sglang-0.5.23", "fp8_e4m3")])
def test_the_flags_set_the_kv_format_that_was_planned(engine: str, kv_format: str) -> None:
    """With --kv-bytes 1 a cache holds twice the tokens, on servers only if they are told; 2 is their default."""
    planned = replace(FOUR_H100, engine=engine, kv_bytes=1)
    halved, usual = (setup_of(each, CATALOGUE) for each in (planned, replace(planned, kv_bytes=2)))
    assert halved.capacity.kv_tokens == pytest.approx(2 * usual.capacity.kv_tokens, rel=1e-3)
    assert f"--kv-cache-dtype {kv_format}" in halved.flags(65_536)
    assert "--kv-cache-dtype" not in " ".join(usual.flags(65_536))


def test_a_note_names_the_formats_that_no_flag_sets() -> None:
    """The arguments have no model, so no format of weights, and no name for KV elements of half a byte."""
    assert "bytes" not in notes_of(FOUR_H100)
    assert "bytes" not in notes_of(replace(FOUR_H100, kv_bytes=1))
    assert "Weights are planned with 1 bytes each" in notes_of(replace(FOUR_H100, weight_bytes=1))
    assert "KV elements are planned with 0.5 bytes each" in notes_of(replace(FOUR_H100, kv_bytes=0.5))
