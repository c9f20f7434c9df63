"""Names of models in a plan that is made from a router's metrics: clients choose them."""

import pytest

from extproc.planning.workload.live_notes import models_note


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("meta/Llama-3.1-8B", "meta/Llama-3.1-8B"),
        ("模型", "模型"),
        ("", "''"),
        (" ", "' '"),
        ("a\nplan: saved", r"'a\nplan: saved'"),
        ("\x1b[31mred", r"'\x1b[31mred'"),
    ],
)
def test_a_name_neither_vanishes_nor_breaks_the_line(name: str, said: str) -> None:
    """An empty name and one with control characters are quoted, others are printed as they are."""
    assert f"planned as if they were one: m, {said}; --metrics-model" in models_note(("m", name))
