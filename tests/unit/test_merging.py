"""The algebraic laws of merging the learned state of several routers."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.errors import ConfigurationError
from extproc.core.estimator import make_estimator
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.merging import bounded, merged, without_model
from extproc.core.estimator.packing import unpacked
from extproc.core.estimator.protocol import CategoryKey, CategoryState, LearnedState
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.terms import Terms
from extproc.core.usage import Usage
from tests.unit.byteclass_lessons import WORDS, facts, teach

SETTINGS = EstimatorSettings()
TERMS = Terms.of(SETTINGS)
NOBODY = LearnedState("")
CACHE: dict[tuple[str, int, int], LearnedState] = {}


def learned(kind: str, seed: int, responses: int) -> LearnedState:
    """Return the state after this many random responses of two models and three tenants."""
    if (kind, seed, responses) not in CACHE:
        estimator = make_estimator(EstimatorSettings(kind=kind))  # type: ignore[arg-type]
        rng = np.random.default_rng(seed)
        for _ in range(responses):
            text = (WORDS * 20)[: int(rng.integers(100, 1_500))]
            request = facts(text, model=f"m{rng.integers(2)}")
            estimate = estimator.estimate(request, f"tenant {rng.integers(3)}")
            usage = Usage(round(len(text) / rng.uniform(3, 5)), int(rng.integers(1, 500)))
            estimator.observe(estimate, usage)
        CACHE[kind, seed, responses] = estimator.state()
    return CACHE[kind, seed, responses]


KINDS = st.sampled_from(["byteclass", "ema"])
PARTS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0, 1, 7, 60])), min_size=1, max_size=5)


def terms(kind: str) -> Terms:
    """Return the terms of an estimator of this kind."""
    return replace(TERMS, kind=kind)


def numbers(state: LearnedState) -> dict[str, Any]:
    """Return all numbers of a state, keyed by the row they belong to."""
    found: dict[str, Any] = {}
    for row in state.categories:
        of = row.bytes_per_token, row.deviation, row.residual, row.spread, row.weight, row.observations
        found[f"category {row.category}"] = of
    for model in state.models:
        for name in ("sums_a", "sums_b", "scale_a", "scale_b"):
            found[f"{name} {model.model}"] = unpacked(getattr(model, name))
        found[f"model {model.model}"] = (
            *(model.q, model.residual, model.spread, model.weight),
            *(model.observations, model.generation, model.clipped, model.refused, model.truncated_by_pool),
        )
    for output in state.outputs:
        found[f"ended {output.category}"] = unpacked(output.ended)
        found[f"cut {output.category}"] = (*unpacked(output.cut), output.observations)
    return found


def same(one: LearnedState, other: LearnedState) -> None:
    """Fail unless two states are equal up to rounding."""
    expected, actual = numbers(one), numbers(other)
    assert expected.keys() == actual.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, rtol=1e-9, atol=1e-12, err_msg=name)


@given(KINDS, PARTS, st.randoms())
@settings(max_examples=25, deadline=None)
def test_the_order_of_merging_does_not_matter(kind: str, parts: Sequence[tuple[int, int]], chance: Any) -> None:
    """Merging is commutative: the same states in any order give the same result."""
    states = [learned(kind, *part) for part in parts]
    shuffled = chance.sample(states, len(states))
    same(merged(states, terms(kind)), merged(shuffled, terms(kind)))


@given(KINDS, PARTS)
@settings(max_examples=25, deadline=None)
def test_merging_in_steps_is_merging_at_once(kind: str, parts: Sequence[tuple[int, int]]) -> None:
    """Merging is associative within a generation: workers may be merged before replicas are."""
    states = [learned(kind, *part) for part in parts]
    so_far = states[0]
    for state in states[1:]:
        so_far = merged([so_far, state], terms(kind))
    same(merged(states, terms(kind)), merged([so_far], terms(kind)))


@pytest.mark.parametrize("states", [[], [NOBODY], [NOBODY, NOBODY]])
def test_nobodys_knowledge_is_empty(states: list[LearnedState]) -> None:
    """If none of the routers has learned, or there are none, the combined state is the empty one."""
    assert NOBODY == merged(states, TERMS)


@given(KINDS, st.integers(0, 5), st.sampled_from([0, 1, 7, 60]))
@settings(max_examples=20, deadline=None)
def test_merging_with_an_empty_state_changes_nothing(kind: str, seed: int, responses: int) -> None:
    """An empty state, or that of a router that has learned nothing, is neutral."""
    state = learned(kind, seed, responses)
    alone = merged([state], terms(kind))
    same(alone, merged([NOBODY, state], terms(kind)))
    same(alone, merged([state, learned(kind, 0, 0)], terms(kind)))
    estimators = [make_estimator(EstimatorSettings(kind=kind)) for _ in range(2)]  # type: ignore[arg-type]
    estimators[0].load(state)
    estimators[1].load(alone)
    request = facts(WORDS * 5, model="m1")
    one, other = (estimator.estimate(request, "tenant 1") for estimator in estimators)
    assert one.prompt_tokens == pytest.approx(other.prompt_tokens)
    assert one.prompt_bound == pytest.approx(other.prompt_bound)
    assert one.output_tokens == other.output_tokens


@given(KINDS, st.integers(0, 5), st.sampled_from([1, 60]), st.integers(2, 4))
@settings(max_examples=20, deadline=None)
def test_means_are_idempotent_and_sums_are_not(kind: str, seed: int, responses: int, times: int) -> None:
    """A state merged with itself keeps its means; its sums and counts are multiplied."""
    state = learned(kind, seed, responses)
    once, often = numbers(merged([state], terms(kind))), numbers(merged([state] * times, terms(kind)))
    for name, values in once.items():
        if name.startswith(("sums", "scale", "ended")):
            np.testing.assert_allclose(often[name], times * np.asarray(values))
        elif name.startswith("category"):
            np.testing.assert_allclose(often[name][:4], values[:4])
            np.testing.assert_allclose(often[name][4:], times * np.asarray(values[4:]))
        elif name.startswith("model"):
            np.testing.assert_allclose(often[name][:3], values[:3])


@given(KINDS, PARTS)
@settings(max_examples=20, deadline=None)
def test_merged_means_lie_between_their_parts(kind: str, parts: Sequence[tuple[int, int]]) -> None:
    """No mean is outside the range of its parts."""
    states = [learned(kind, *part) for part in parts]
    whole = merged(states, terms(kind))
    for row in whole.categories:
        of = [part for state in states for part in state.categories if part.category == row.category]
        for name in ("bytes_per_token", "deviation", "residual", "spread"):
            values = [getattr(part, name) for part in of] or [getattr(row, name)]
            assert min(values) - 1e-9 <= getattr(row, name) <= max(values) + 1e-9
    for model in whole.models:
        qs = [part.q for state in states for part in state.models if part.model == model.model]
        assert min(qs) - 1e-9 <= model.q <= max(qs) + 1e-9


@given(KINDS, PARTS)
@settings(max_examples=20, deadline=None)
def test_a_bounded_state_has_the_weight_of_one_router_and_the_same_means(
    kind: str, parts: Sequence[tuple[int, int]]
) -> None:
    """However many states were merged, the weight is bounded and means are kept; bounding is idempotent."""
    whole = merged([learned(kind, *part) for part in parts] * 40, terms(kind))
    small = bounded(whole, terms(kind))
    of_prices, of_scale = terms(kind).model_memories
    for model in small.models:
        assert model.weight <= of_prices + 1e-6
        assert unpacked(model.scale_a)[0] <= of_scale + 1e-6
    for row, before in zip(
        sorted(small.categories, key=lambda r: r.category),
        sorted(whole.categories, key=lambda r: r.category),
        strict=True,
    ):
        assert row.weight <= terms(kind).category_memory + 1e-6
        assert row.residual == pytest.approx(before.residual)
        assert row.bytes_per_token == pytest.approx(before.bytes_per_token)
    same(small, bounded(small, terms(kind)))


@pytest.mark.parametrize("kind", ["byteclass", "ema"])
def test_only_what_is_too_heavy_is_scaled_down(kind: str) -> None:
    """What one router can have learned stays as it is; of what many have learned, each row has the weight of one
    router's memory.
    """
    light = merged([learned(kind, 1, 7)], terms(kind))
    same(light, bounded(light, terms(kind)))
    heavy = bounded(merged([learned(kind, 1, 60)] * 200, terms(kind)), terms(kind))
    assert heavy.categories
    assert all(terms(kind).category_memory == pytest.approx(row.weight) for row in heavy.categories)
    assert all(terms(kind).model_memory == pytest.approx(model.weight) for model in heavy.models)


def test_a_ratio_that_was_forgotten_is_not_merged() -> None:
    """A category without responses, as after others forgot theirs, has no mean that a router could load."""
    state = learned("ema", 1, 60)
    first, *rest = state.categories
    forgotten = replace(state, categories=(replace(first, observations=0), *rest))
    whole = merged([forgotten, forgotten], terms("ema"))
    make_estimator(EstimatorSettings(kind="ema")).load(whole)
    assert {row.category for row in rest} == {row.category for row in whole.categories}


def test_of_two_generations_the_heavier_one_is_kept() -> None:
    """Sums of two tokenizers are not added; the categories of the dropped generation are dropped, too."""
    old, new = learned("byteclass", 1, 60), learned("byteclass", 2, 7)
    later = replace(new, models=tuple(replace(row, generation=1) for row in new.models))
    same(
        replace(merged([old], TERMS), outputs=()),
        replace(
            merged([replace(later, categories=later.categories[:-1]), old], TERMS),
            outputs=(),
        ),
    )


def test_incompatible_states_do_not_merge() -> None:
    """Kind of estimator, features and lengths of rows must be the same; the message says what differs."""
    one = learned("byteclass", 1, 7)
    with pytest.raises(ConfigurationError, match="of kinds byteclass and ema"):
        merged([one, learned("ema", 1, 7)], TERMS)
    with pytest.raises(ConfigurationError, match="different features"):
        merged([one, replace(one, features=one.features[::-1])], TERMS)
    short = replace(one.outputs[0], ended=one.outputs[0].ended[8:], cut=one.outputs[0].cut[8:])
    with pytest.raises(ConfigurationError, match="different lengths"):
        merged([one, replace(one, outputs=(short,))], TERMS)


def test_a_model_can_be_left_out() -> None:
    """Nothing of the model is left, and everything of the others."""
    state = learned("byteclass", 1, 60)
    rest = without_model(state, "m0")
    assert {"m1"} == {row.model for row in rest.models}
    assert {"m1", ""} == {row.category.model for row in rest.categories}
    assert {"m1"} == {row.category.model for row in rest.outputs}


def test_merged_replicas_estimate_like_one_that_saw_everything() -> None:
    """The merged state of four routers with a quarter each estimates a prompt like one that saw everything."""
    one = ByteClassEstimator(SETTINGS)
    quarters = [ByteClassEstimator(SETTINGS) for _ in range(4)]
    for seed, quarter in enumerate(quarters):
        teach(quarter, 100, seed=seed)
        teach(one, 100, seed=seed)
    merging = ByteClassEstimator(SETTINGS)
    merging.load(merged([quarter.state() for quarter in quarters], TERMS))
    request = facts((WORDS * 20)[:1_500])
    expected, actual = one.estimate(request, ""), merging.estimate(request, "")
    assert expected.prompt_tokens == pytest.approx(actual.prompt_tokens, rel=0.01)
    assert expected.prompt_bound == pytest.approx(actual.prompt_bound, rel=0.05)


def test_duplicate_rows_are_refused() -> None:
    """A state with two rows for one category is invalid."""
    row = CategoryState(CategoryKey("m", "k"), 4.0, 1.0, 5)
    with pytest.raises(ConfigurationError, match="twice"):
        merged([LearnedState("ema", (row, row))], terms("ema"))


def test_a_full_estimator_keeps_the_heaviest_rows() -> None:
    """A merged state is sorted by weight, so that loading it into a small map drops the lightest rows."""
    whole = merged([learned("byteclass", 1, 60), learned("byteclass", 2, 7)], TERMS)
    assert all(one.weight <= other.weight for one, other in pairwise(whole.categories))


def test_counts_of_what_was_not_believed_add_up() -> None:
    """Clipped, refused and truncated responses of several routers are those of all of them."""
    estimator = ByteClassEstimator(SETTINGS)
    teach(estimator, 5)
    state = estimator.state()
    states = [
        replace(state, models=(replace(state.models[0], clipped=a, refused=b, truncated_by_pool=c),))
        for a, b, c in ((3, 5, 7), (10, 20, 30))
    ]
    (found,) = merged(states, TERMS).models
    assert (13, 25, 37) == (found.clipped, found.refused, found.truncated_by_pool)
