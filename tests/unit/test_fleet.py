"""Placement by the models that pools serve, as configured and as reported by their servers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.config.loading import parse
from extproc.core.errors import ConfigurationError
from extproc.core.facts import Api, RequestFacts
from extproc.core.placing.budget import TokenBudget
from extproc.core.placing.fleet import ANY_OTHER, Busy, Fleet, PoolLoad, Served, Serving
from extproc.core.placing.policy import Pool, Pools, Reason
from extproc.core.placing.pool import Endpoints

S, M, L = Pool("s", 100, 125), Pool("m", 1_000), Pool("l", 10_000)


def placed(
    pools: Sequence[Pool], model: str, total: int, served: Mapping[str, Served] | None = None, **facts: Any
) -> tuple[str, Reason]:
    """Return the pool and the reason for a request with this model and budget."""
    ours = Pools(pools)
    fleet = None if served is None else Fleet(Serving(ours.ascending, served))
    budget = TokenBudget(total, total, 0, 1, total)
    pool, reason = ours.place(RequestFacts(Api.CHAT, model, b"", **facts), budget, fleet)
    return pool.name, reason


BUDGETS = st.builds(TokenBudget, *[st.integers(0, 20_000)] * 3, st.just(1), st.just(1))


@given(budget=BUDGETS, model=st.text(max_size=20), unseen=st.booleans(), stored=st.none() | st.booleans())
def test_without_configured_models_only_the_two_limits_decide(
    budget: TokenBudget,
    model: str,
    unseen: bool,  # noqa: FBT001
    stored: bool | None,  # noqa: FBT001
) -> None:
    """Without models and endpoints the model name has no effect: the first pool that holds the request gets it."""
    facts = RequestFacts(Api.CHAT, model, b"", unseen_history=unseen, stored=stored)
    if unseen:
        expected = L, Reason.UNSEEN_HISTORY
    elif stored:
        expected = L, Reason.STORED
    else:
        fits = [p for p in (S, M) if budget.total <= p.max_budget_tokens and budget.bound <= p.context_tokens]
        expected = (fits[0], Reason.FITS) if fits else (L, Reason.TOO_LONG)
    pools = Pools((S, M, L))
    for fleet in (None, pools.fleet, Fleet(Serving(pools.ascending, {}))):
        assert expected == pools.place(facts, budget, fleet)


QWEN: dict[str, int | None] = {"qwen": 90, "other": None}


@pytest.mark.parametrize("name", ["qwen:adapter", "anything", "*"])
@pytest.mark.parametrize(
    ("small_accepts", "large_accepts", "expected"),
    [
        (True, True, ("s", Reason.FITS)),
        (False, True, ("l", Reason.NOT_SERVED)),
        (True, False, ("l", Reason.UNKNOWN_MODEL)),
    ],
)
def test_a_name_that_no_server_lists_goes_where_servers_accept_any(
    name: str,
    small_accepts: bool,  # noqa: FBT001
    large_accepts: bool,  # noqa: FBT001
    expected: tuple[str, Reason],
) -> None:
    """SGLang serves every name, vLLM refuses one that it does not list: it must not get there instead."""
    served = {
        "s": QWEN | ({ANY_OTHER: None} if small_accepts else {}),
        "l": QWEN | ({ANY_OTHER: None} if large_accepts else {}),
    }
    assert expected == placed((S, L), name, 50, served)
    assert ("s", Reason.FITS) == placed((S, L), "qwen", 50, served)
    if expected[1] is Reason.FITS:
        assert ("l", Reason.TOO_LONG) == placed((S, L), name, 95, served)


def test_an_adapter_goes_to_the_pools_of_its_base() -> None:
    """Of two SGLang pools with different models, the one that lists the part before the colon gets it."""
    served: dict[str, Served] = {
        "s": {"llama": None, ANY_OTHER: None},
        "m": {"qwen": None, ANY_OTHER: None},
        "l": {"llama": None, "qwen": None, ANY_OTHER: None},
    }
    assert ("m", Reason.FITS) == placed((S, M, L), "qwen:adapter", 50, served)
    assert ("s", Reason.FITS) == placed((S, M, L), "llama:adapter", 50, served)
    assert ("s", Reason.FITS) == placed((S, M, L), "default", 50, served)


@pytest.mark.parametrize(
    ("model", "total", "expected"),
    [
        ("llama-8b", 50, ("s", Reason.FITS)),
        ("llama-8b", 500, ("l", Reason.TOO_LONG)),  # the middle pool does not serve it
        ("qwen", 50, ("m", Reason.FITS)),
        ("qwen", 5_000, ("l", Reason.TOO_LONG)),
        ("other", 50, ("l", Reason.NOT_SERVED)),
        ("", 50, ("l", Reason.NOT_SERVED)),
    ],
)
def test_a_pool_takes_only_its_configured_models(model: str, total: int, expected: tuple[str, Reason]) -> None:
    """A request goes to the smallest pool that serves its model and holds it, otherwise to the default."""
    pools = (Pool("s", 100, models=("llama-*",)), Pool("m", 1_000, models=("qwen", "gpt-?")), L)
    assert expected == placed(pools, model, total)


FLEETS = (
    *(Pool("a-short", 100, models=("a", "a-*")), Pool("b-short", 100, models=("b",))),
    *(Pool("b-long", 1_000, models=("b",)), Pool("a-long", 10_000, models=("a", "a-*"))),
)


@pytest.mark.parametrize(
    ("model", "total", "expected"),
    [
        ("a", 50, ("a-short", Reason.FITS)),
        ("a-sql", 5_000, ("a-long", Reason.TOO_LONG)),
        ("b", 50, ("b-short", Reason.FITS)),
        ("b", 500, ("b-long", Reason.TOO_LONG)),
        ("b", 5_000, ("b-long", Reason.TOO_LONG)),  # its largest pool, which refuses it as it should
        ("c", 50, ("a-long", Reason.UNKNOWN_MODEL)),
    ],
)
def test_models_with_their_own_pools_have_their_own_defaults(
    model: str, total: int, expected: tuple[str, Reason]
) -> None:
    """The largest pool that serves a model is its default; a model that none serves goes to the last pool."""
    assert expected == placed(FLEETS, model, total)


@pytest.mark.parametrize("facts", [{"unseen_history": True}, {"stored": True}])
def test_requests_for_the_default_pool_go_to_that_of_their_model(facts: dict[str, Any]) -> None:
    """The servers of a model hold its stored responses."""
    assert "b-long" == placed(FLEETS, "b", 50, **facts)[0]


@pytest.mark.parametrize(
    ("model", "total", "pool"),
    [
        ("x", 100, "s"),
        ("x", 101, "m"),  # above the configured threshold, whatever the servers hold
        ("small", 80, "s"),
        ("small", 81, "l"),  # its servers have a shorter context for this model than configured
        ("unknown-length", 100, "s"),
        ("only-l", 10, "l"),
    ],
)
def test_a_pool_serves_and_holds_what_its_servers_report(model: str, total: int, pool: str) -> None:
    """A pool's capacity for a model is the smaller of the reported and the configured length."""
    served: dict[str, Served] = {
        "s": {"x": 120, "small": 80, "unknown-length": None},
        "m": {"x": 1_000},
        "l": {"x": 9_999, "small": 200, "unknown-length": None, "only-l": None},
    }
    assert pool == placed((S, M, L), model, total, served)[0]


@pytest.mark.parametrize("listed", [{}, {"y": 64_000}])
def test_the_default_pool_stays_the_default_whatever_its_servers_list(listed: Served) -> None:
    """An empty or wrong list sends no request to a pool that does not hold it."""
    served: dict[str, Served] = {"s": {"x": 120}, "l": listed}
    assert [("s", Reason.FITS), ("l", Reason.TOO_LONG)] == [
        placed((S, L), "x", total, served) for total in (90, 200)
    ]


def test_a_reported_length_gives_head_room() -> None:
    """Without a configured max_model_len a bound has to fit the length that the servers report."""
    pools = Pools((Pool("s", 100), L))
    fleet = Fleet(Serving(pools.ascending, {"s": {"x": 125}}))
    facts = RequestFacts(Api.CHAT, "x", b"")
    assert "s" == pools.place(facts, TokenBudget(90, 125, 0, 1, 90), fleet)[0].name
    assert "l" == pools.place(facts, TokenBudget(90, 126, 0, 1, 90), fleet)[0].name
    assert "l" == pools.place(facts, TokenBudget(90, 125, 0, 1, 90))[0].name


def test_a_configured_length_is_not_exceeded() -> None:
    """Servers that report more than the configured max_model_len get no longer requests."""
    pools = Pools((S, L))
    fleet = Fleet(Serving(pools.ascending, {"s": {"x": 9_000}}))
    found = [
        pools.place(RequestFacts(Api.CHAT, "x", b""), TokenBudget(90, bound, 0, 1, 90), fleet)[0]
        for bound in (125, 126)
    ]
    assert [S, L] == found


def test_a_request_without_a_model_is_for_the_first_one_that_the_default_lists() -> None:
    """Servers of vLLM serve a request without a model with the first one they list."""
    served: dict[str, Served] = {"s": {"b": None}, "l": {"b": None, "a": None}}
    assert "s" == placed((S, L), "", 10, served)[0]
    assert "l" == placed((S, L), "", 10, served | {"l": {"a": None, "b": None}})[0]


def test_a_model_must_be_both_configured_and_listed() -> None:
    """A pool gets only models that its servers list and its configuration names."""
    pools = (Pool("s", 100, models=("a*",)), L)
    served: dict[str, Served] = {"s": {"a1": None, "b": None}}
    assert ["s", "l", "l"] == [placed(pools, model, 10, served)[0] for model in ("a1", "b", "a2")]


def test_pools_of_the_same_size_need_different_models() -> None:
    """Pools of different models may be equally large; with the same models the second would never be used."""
    for models in ((), ("a",)):
        with pytest.raises(ConfigurationError, match="ascend"):
            Pools((Pool("s", 100, models=models), Pool("t", 100, models=models)))


def test_the_models_and_servers_of_a_pool_are_configured() -> None:
    """The configuration file has globs for models, and endpoints, per pool."""
    pools = parse(
        """
        pools:
          - name: short
            max_budget_tokens: 10
            models: ["llama-*"]
            endpoints: {urls: ["http://a:1"], dns: "http://vllm", file: /etc/servers}
          - {name: long, max_budget_tokens: 20}
        """
    ).pools
    assert ("llama-*",) == pools[0].models
    assert pools[0].endpoints is not None
    assert (("http://a:1",), "http://vllm") == (pools[0].endpoints.urls, pools[0].endpoints.dns)
    assert None is pools[1].endpoints


def test_reconfigured_pools_keep_the_reports_of_unchanged_servers() -> None:
    """Pools with the same servers keep their reports; the reports of changed or removed servers are dropped."""
    before = [
        Pool(name, size, endpoints=Endpoints((f"http://{name}",)))
        for name, size in (("s", 9), ("t", 19), ("l", 29))
    ]
    load = PoolLoad(Busy(1, 0, 0, 0.0))
    known = Fleet(Serving(before, {p.name: {"m": 5} for p in before}), {p.name: load for p in before}, {"a": "m"})
    after = [
        replace(before[0], max_budget_tokens=3),
        replace(before[1], endpoints=Endpoints(("http://other",))),
        replace(before[2], endpoints=None),
    ]
    fleet = known.under(after)
    assert ({"s": {"m": 5}}, {"s": load}, {"a": "m"}) == (fleet.serving.served, fleet.loads, fleet.parents)
    assert ["t", "l"] == [
        rung.pool.name for rung in (*fleet.serving.ladder("x").smaller, fleet.serving.ladder("x").default)
    ]


def test_spillover_needs_servers_to_poll() -> None:
    """Spillover requires pools whose load is known."""
    with pytest.raises(ConfigurationError, match=r"spill\.enabled: true given"):
        parse("spill: {enabled: true}")


@pytest.mark.parametrize("url", ["a:1", "ftp://a", "http://a/v1", "http://", "http://a b", "http://me:secret@a"])
def test_an_endpoint_that_is_not_a_url_is_refused(url: str) -> None:
    """The error names the setting, its value and what is allowed."""
    with pytest.raises(
        ConfigurationError, match=r"pools\[0\].endpoints.urls\[0\]: .* allowed: .*URLs without a path"
    ):
        parse(f'pools: [{{name: s, max_budget_tokens: 1, endpoints: {{urls: ["{url}"]}}}}]')


@pytest.mark.parametrize(
    ("home", "others"), [("a", "bcd"), ("b", "cda"), ("c", "dba"), ("d", "cba"), ("unknown", "dcba")]
)
def test_other_pools_are_tried_upwards_and_then_downwards(home: str, others: str) -> None:
    """It goes to larger pools first, since they hold it; without a home pool, to the largest first."""
    pools = Pools([Pool(name, 10**size) for size, name in enumerate("abcd")])
    of_name = {pool.name: pool for pool in pools.ascending}
    ladder = pools.fleet.serving.ladder("m")
    found = [rung.pool.name for rung in ladder.others(of_name.get(home, Pool("unknown", 1)))]
    assert list(others) == found


@pytest.mark.parametrize(("model", "budget", "context"), [("x", 100, 120), ("small", 80, 80)])
def test_a_budget_is_limited_to_what_the_servers_hold(model: str, budget: int, context: int) -> None:
    """The configured budget is limited to what the servers hold of this model."""
    serving = Serving((S, L), {"s": {"x": 120, "small": 80}, "l": {"x": 9_999, "small": 200}})
    (rung,) = serving.ladder(model).smaller
    assert (budget, context) == (rung.budget_tokens, rung.context_tokens)
