"""Embeddings: which requests are not kept, because their responses were too large to be read."""

import json

import pytest

from extproc.core.errors import ResponseFault
from extproc.core.facts import Api, RequestHead
from extproc.core.placing.decision import Decision
from extproc.core.router.router import Router
from tests.unit.test_learner import STREAM, kept, make_router


def embedded(router: Router, prompts: int, model: str = "e") -> Decision | None:
    """Return the decision for a request for embeddings, or None if it is not kept."""
    body = json.dumps({"model": model, "input": ["a"] * prompts}).encode()
    decision = router.decide(Api.EMBEDDINGS, RequestHead("POST", "/v1/embeddings"), body)
    return decision if router.learner.keeps(decision, 0.0) else None


def test_embeddings_that_were_too_large_are_not_kept_again() -> None:
    """After a response above the size limit, requests of the model with as many prompts are released at once."""
    router = make_router()

    first = embedded(router, 100)
    assert first is not None
    router.learner.not_learned(first, ResponseFault.TOO_LARGE)
    assert [True, False, False] == [embedded(router, prompts) is not None for prompts in (99, 100, 500)]
    assert embedded(router, 500, "other") is not None


def test_the_fewest_prompts_that_were_too_many_count() -> None:
    """Responses may come in any order: a later failure with 500 prompts does not raise the limit again."""
    router = make_router()
    decisions = [embedded(router, prompts) for prompts in (100, 50, 500)]
    for decision in decisions:
        assert decision is not None
        router.learner.not_learned(decision, ResponseFault.TOO_LARGE)
    assert [True, False, False] == [embedded(router, prompts) is not None for prompts in (49, 50, 100)]


@pytest.mark.parametrize("fault", [ResponseFault.NO_USAGE, ResponseFault.CUT_SHORT])
def test_embeddings_that_failed_otherwise_are_kept_again(fault: ResponseFault) -> None:
    """Only a response above the size limit predicts that others will be, too."""
    router = make_router()
    decision = embedded(router, 100)
    assert decision is not None
    router.learner.not_learned(decision, fault)
    assert embedded(router, 100) is not None


def test_a_chat_that_was_too_long_does_not_affect_embeddings() -> None:
    """A model name may be used for both."""
    router = make_router()
    decision = kept(router, "e", **STREAM)
    assert decision is not None
    router.learner.not_learned(decision, ResponseFault.TOO_LARGE)
    assert embedded(router, 100) is not None
