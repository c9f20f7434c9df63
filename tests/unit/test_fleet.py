"""Which pools serve a model, as configured and as found out, and what follows for its requests."""

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
from extproc.core.placing.fleet import Busy, Fleet, PoolLoad, Served, Serving
from extproc.core.placing.policy import Pool, Pools, Reason
from extproc.core.placing.pool import Endpoints

S, M, L = Pool("s", 100, 125), Pool("m", 1_000), Pool("l", 10_000)


def placed(
    pools: Sequence[Pool], model: str, total: int, served: Mapping[str, Served] | None = None, **facts: Any
) -> tuple[str, Reason]:
    """Return where a request of a model and a size goes, and why."""
    ours = Pools(pools)
    fleet = None if served is None else Fleet(Serving(ours.ascending, served))
    budget = TokenBudget(total, total, 0, 1, total)
    pool, reason = ours.place(RequestFacts(Api.CHAT, model, b"", **facts), budget, fleet)
    return pool.name, reason


BUDGETS = st.builds(TokenBudget, *[st.integers(0, 20_000)] * 3, st.just(1), st.just(1))


@given(budget=BUDGETS, model=st.text(max_size=20), unseen=st.booleans(), stored=st.none() | st.booleans())
def test_where_nothing_is_configured_the_two_limits_alone_decide(
    budget: TokenBudget,
    model: str,
    unseen: bool,  # noqa: FBT001
    stored: bool | None,  # noqa: FBT001
) -> None:
    """Without models and endpoints a model's name changes nothing: the first pool within whose limits it is."""
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


@pytest.mark.parametrize(
    ("model", "total", "expected"),
    [
        ("llama-8b", 50, ("s", Reason.FITS)),
        ("llama-8b", 500, ("l", Reason.TOO_LONG)),  # the middle one does not serve it
        ("qwen", 50, ("m", Reason.FITS)),
        ("qwen", 5_000, ("l", Reason.TOO_LONG)),
        ("other", 50, ("l", Reason.NOT_SERVED)),
        ("", 50, ("l", Reason.NOT_SERVED)),
    ],
)
def test_a_pool_takes_the_models_that_it_is_configured_for(
    model: str, total: int, expected: tuple[str, Reason]
) -> None:
    """A request goes on to the next larger pool that serves its model, and at last to the default."""
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
        ("b", 5_000, ("b-long", Reason.TOO_LONG)),  # the largest of its own, where it is refused as it should be
        ("c", 50, ("a-long", Reason.UNKNOWN_MODEL)),
    ],
)
def test_models_with_pools_of_their_own_have_defaults_of_their_own(
    model: str, total: int, expected: tuple[str, Reason]
) -> None:
    """The largest pool that serves a model is its default; a name that nobody serves is the last pool's."""
    assert expected == placed(FLEETS, model, total)


@pytest.mark.parametrize("facts", [{"unseen_history": True}, {"stored": True}])
def test_what_has_to_be_in_the_default_pool_is_in_that_of_its_model(facts: dict[str, Any]) -> None:
    """A stored response of a model is kept by servers of that model."""
    assert "b-long" == placed(FLEETS, "b", 50, **facts)[0]


@pytest.mark.parametrize(
    ("model", "total", "pool"),
    [
        ("x", 100, "s"),
        ("x", 101, "m"),  # over the configured threshold, whatever the servers hold
        ("small", 80, "s"),
        ("small", 81, "l"),  # its servers hold less of this model than is configured
        ("unknown-length", 100, "s"),
        ("only-l", 10, "l"),
    ],
)
def test_what_servers_list_is_what_a_pool_serves_and_holds(model: str, total: int, pool: str) -> None:
    """A length told for a model is the pool's capacity for it; of that and the configured the smaller holds."""
    served: dict[str, Served] = {
        "s": {"x": 120, "small": 80, "unknown-length": None},
        "m": {"x": 1_000},
        "l": {"x": 9_999, "small": 200, "unknown-length": None, "only-l": None},
    }
    assert pool == placed((S, M, L), model, total, served)[0]


@pytest.mark.parametrize("listed", [{}, {"y": 64_000}])
def test_the_default_pool_stays_the_default_whatever_its_servers_list(listed: Served) -> None:
    """A list that is empty or wrong sends nothing to a pool that does not hold it."""
    served: dict[str, Served] = {"s": {"x": 120}, "l": listed}
    assert [("s", Reason.FITS), ("l", Reason.TOO_LONG)] == [
        placed((S, L), "x", total, served) for total in (90, 200)
    ]


def test_a_length_that_was_found_out_gives_head_room() -> None:
    """Where no max_model_len is configured the servers' own is what a bound has to fit."""
    pools = Pools((Pool("s", 100), L))
    fleet = Fleet(Serving(pools.ascending, {"s": {"x": 125}}))
    facts = RequestFacts(Api.CHAT, "x", b"")
    assert "s" == pools.place(facts, TokenBudget(90, 125, 0, 1, 90), fleet)[0].name
    assert "l" == pools.place(facts, TokenBudget(90, 126, 0, 1, 90), fleet)[0].name
    assert "l" == pools.place(facts, TokenBudget(90, 125, 0, 1, 90))[0].name


def test_a_length_that_was_configured_is_not_exceeded() -> None:
    """Servers that hold more of a model than max_model_len get no more for it."""
    pools = Pools((S, L))
    fleet = Fleet(Serving(pools.ascending, {"s": {"x": 9_000}}))
    found = [
        pools.place(RequestFacts(Api.CHAT, "x", b""), TokenBudget(90, bound, 0, 1, 90), fleet)[0]
        for bound in (125, 126)
    ]
    assert [S, L] == found


def test_a_request_without_a_model_is_one_for_that_which_the_default_lists_first() -> None:
    """VLLM serves such a request with its first name."""
    served: dict[str, Served] = {"s": {"b": None}, "l": {"b": None, "a": None}}
    assert "s" == placed((S, L), "", 10, served)[0]
    assert "l" == placed((S, L), "", 10, served | {"l": {"a": None, "b": None}})[0]


def test_configured_and_listed_both_have_to_say_so() -> None:
    """A model that servers list and the configuration does not name is not sent there, nor the other way round."""
    pools = (Pool("s", 100, models=("a*",)), L)
    served: dict[str, Served] = {"s": {"a1": None, "b": None}}
    assert ["s", "l", "l"] == [placed(pools, model, 10, served)[0] for model in ("a1", "b", "a2")]


def test_neighbours_of_the_same_size_need_models_that_differ() -> None:
    """Pools of different models may be equally large; of the same, the second would never be taken."""
    for models in ((), ("a",)):
        with pytest.raises(ConfigurationError, match="ascend"):
            Pools((Pool("s", 100, models=models), Pool("t", 100, models=models)))


def test_the_models_and_servers_of_a_pool_are_configured() -> None:
    """The file has globs and endpoints for each pool."""
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


def test_pools_that_are_configured_anew_are_known_by_what_their_servers_said() -> None:
    """Those with the same servers; of others, and of those that are asked no longer, nothing is believed."""
    asked = [
        Pool(name, size, endpoints=Endpoints((f"http://{name}",)))
        for name, size in (("s", 9), ("t", 19), ("l", 29))
    ]
    load = PoolLoad(Busy(1, 0, 0, 0.0))
    known = Fleet(Serving(asked, {p.name: {"m": 5} for p in asked}), {p.name: load for p in asked}, {"a": "m"})
    after = [
        replace(asked[0], max_budget_tokens=3),
        replace(asked[1], endpoints=Endpoints(("http://other",))),
        replace(asked[2], endpoints=None),
    ]
    fleet = known.under(after)
    assert ({"s": {"m": 5}}, {"s": load}, {"a": "m"}) == (fleet.serving.served, fleet.loads, fleet.parents)
    assert ["t", "l"] == [
        rung.pool.name for rung in (*fleet.serving.ladder("x").smaller, fleet.serving.ladder("x").default)
    ]


def test_spill_over_needs_servers_to_ask() -> None:
    """Requests that leave a pool need another whose load is known."""
    with pytest.raises(ConfigurationError, match=r"spill\.enabled: true given"):
        parse("spill: {enabled: true}")


@pytest.mark.parametrize("url", ["a:1", "ftp://a", "http://a/v1", "http://", "http://a b", "http://me:secret@a"])
def test_an_endpoint_that_is_no_url_is_refused(url: str) -> None:
    """What is wrong is told with its place, its value and what is allowed."""
    with pytest.raises(
        ConfigurationError, match=r"pools\[0\].endpoints.urls\[0\]: .* allowed: .*URLs without a path"
    ):
        parse(f'pools: [{{name: s, max_budget_tokens: 1, endpoints: {{urls: ["{url}"]}}}}]')


@pytest.mark.parametrize(
    ("home", "others"), [("a", "bcd"), ("b", "cda"), ("c", "dba"), ("d", "cba"), ("unknown", "dcba")]
)
def test_beside_its_own_pool_a_request_may_go_up_and_then_down(home: str, others: str) -> None:
    """To the larger ones first, since they hold it; from one that does not serve it, to the largest first."""
    pools = Pools([Pool(name, 10**size) for size, name in enumerate("abcd")])
    of_name = {pool.name: pool for pool in pools.ascending}
    ladder = pools.fleet.serving.ladder("m")
    found = [rung.pool.name for rung in ladder.others(of_name.get(home, Pool("unknown", 1)))]
    assert list(others) == found


@pytest.mark.parametrize(("model", "budget", "context"), [("x", 100, 120), ("small", 80, 80)])
def test_a_budget_is_within_what_the_servers_hold(model: str, budget: int, context: int) -> None:
    """Of what is configured for all models no more is taken than there is room for of this one."""
    serving = Serving((S, L), {"s": {"x": 120, "small": 80}, "l": {"x": 9_999, "small": 200}})
    (rung,) = serving.ladder(model).smaller
    assert (budget, context) == (rung.budget_tokens, rung.context_tokens)
