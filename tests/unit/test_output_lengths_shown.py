"""Which responses teach output lengths: those whose length the model chose, by both kinds of estimator."""

from typing import Any, Literal

import pytest

from extproc.core.estimator import make_estimator
from extproc.core.estimator.protocol import OutputState
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.facts import Api, RequestFacts
from extproc.core.usage import Usage

Kind = Literal["byteclass", "ema"]


def taught(kind: Kind, **others: Any) -> tuple[OutputState, ...]:
    """Return the lengths learned from one response to a request with these facts."""
    estimator = make_estimator(EstimatorSettings(kind=kind))
    facts = RequestFacts(Api.CHAT, "m", b"hello there", messages=1, **others)
    estimator.observe(estimator.estimate(facts, ""), Usage(10, 50))
    return estimator.state().outputs


@pytest.mark.parametrize("kind", ["byteclass", "ema"])
@pytest.mark.parametrize("limit", [None, 50])
def test_a_forced_output_teaches_no_length(kind: Kind, limit: int | None) -> None:
    """With `ignore_eos` or `min_tokens` the client chose the length, whether it declares a limit or not."""
    forced = {"output_forced": True, "unseen_history": limit is None}
    assert () == taught(kind, max_output_tokens=limit, **forced)


@pytest.mark.parametrize("kind", ["byteclass", "ema"])
@pytest.mark.parametrize(
    "others",
    [{}, {"unseen_history": True}, {"truncate_prompt_tokens": 10}, {"exact_prompt_tokens": 10}],
    ids=["all in the body", "unseen history", "truncated", "token ids"],
)
def test_an_output_of_its_own_length_teaches_it(kind: Kind, others: dict[str, Any]) -> None:
    """What is unknown about a prompt does not matter to the length of its output."""
    assert [1, 1] == [state.observations for state in taught(kind, **others)]
