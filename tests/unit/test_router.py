"""A router that is informed about the pools while it runs."""

import json

from extproc.core.facts import Api, RequestHead
from extproc.core.placing.decision import Decision
from extproc.core.placing.fleet import Fleet, Serving
from extproc.core.placing.policy import Pool, Reason
from extproc.core.router.router import Router
from extproc.core.usage import Usage
from tests.unit.conftest import TWO_POOLS, make_router

HEAD = RequestHead("POST", "/v1/chat/completions")


def decided(router: Router, model: str) -> Decision:
    """Return the decision on a small request for a model."""
    body = {"model": model, "messages": [{"role": "user", "content": "How are you? " * 9}], "max_tokens": 9}
    return router.decide(Api.CHAT, HEAD, json.dumps(body).encode())


def test_the_pools_models_are_used_once_known() -> None:
    """Once the pools' models are known, requests follow them."""
    router = make_router()
    assert Reason.FITS is decided(router, "other").reason
    router.know(Fleet(Serving((Pool("short", 1_000, models=("m",)), TWO_POOLS[1]))))
    assert [Reason.FITS, Reason.NOT_SERVED] == [decided(router, model).reason for model in ("m", "other")]


def test_the_bases_of_adapters_are_used_once_known() -> None:
    """Once their bases are known, adapters are estimated by their base's prices."""
    router = make_router()
    first = decided(router, "base").estimate
    assert first is not None
    for _ in range(40):
        router.placer.estimator.observe(first, Usage(round(first.prompt_tokens * 1.3)))
    of_base, of_adapter = (decided(router, model).estimate for model in ("base", "adapter"))
    assert of_base is not None
    assert of_adapter is not None
    assert of_base.prompt_tokens > 1.1 * of_adapter.prompt_tokens
    router.know(Fleet(Serving(TWO_POOLS), parents={"adapter": "base"}))
    estimate = decided(router, "adapter").estimate
    assert estimate is not None
    assert estimate.prompt_tokens > 1.1 * of_adapter.prompt_tokens
