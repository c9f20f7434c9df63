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


@pytest.mark.parametrize("model", ["qwen3-32b", "qwen3-30b-a3b", "qwen3-235b-a22b"])
@pytest.mark.parametrize(
    ("context", "factor"), [(40_960, None), (40_976, 2), (65_536, 2), (65_552, 3), (131_072, 4)]
)
def test_contexts_beyond_a_models_own_turn_yarn_on(model: str, context: int, factor: int | None) -> None:
    """With more than the 40,960 positions of config.json vLLM refuses to start; shorter pools stay as they are."""
    setup = setup_of(replace(FOUR_H100, model=model, tp=4 if model == "qwen3-32b" else 8), CATALOGUE)
    rope = dict(each.split() for each in setup.flags(context) if each.startswith("--hf-overrides"))
    wanted = {
        "rope_type": "yarn",
        "factor": f"{factor}.0",
        "original_max_position_embeddings": "32768",
        "rope_theta": "1000000",
    }
    keys = {f"--hf-overrides.rope_parameters.{key}": value for key, value in wanted.items()}
    assert (keys if factor else {}) == rope


def test_a_note_says_that_a_context_needs_yarn() -> None:
    """Newer weights of the same size do without, and SGLang needs a variable that no argument sets."""
    qwen = replace(FOUR_H100, model="qwen3-32b", long_context=65_536)
    assert "--hf-overrides" in notes_of(qwen)
    assert "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN" in notes_of(replace(qwen, engine="sglang-0.5.23"))
    for without in (replace(qwen, long_context=32_768), replace(qwen, model="llama-3-8b")):
        assert "YaRN" not in notes_of(without)
