"""The constant that a server adds to one tenant's prompts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.extra import Extra
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.usage import Overflow, Usage
from tests.unit.byteclass_lessons import WORDS, facts

ADDED = 1_500


def learned(added: float, factor: float, count: int, noise: float = 0.04, seed: int = 1) -> Extra:
    """Return what is learned about a tenant whose prompts cost this constant and this factor more."""
    return taught(Extra(), added, count, seed, factor=factor, noise=noise)


def taught(
    extra: Extra, added: float, count: int, seed: int, *, factor: float = 1.0, noise: float = 0.04
) -> Extra:
    """Teach responses of such a tenant; return the same object."""
    rng = np.random.default_rng(seed)
    for priced in np.exp(rng.uniform(np.log(100), np.log(8_000), count)):
        extra.learn(float(priced), round(added + factor * priced * rng.normal(1, noise)))
    return extra


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.15])
def test_a_constant_is_found_in_addition_to_a_factor(factor: float) -> None:
    """Whatever a tenant's words cost, the constant on top of them is known to 8 % after twenty responses."""
    assert ADDED == pytest.approx(learned(ADDED, factor, 20).tokens, rel=0.08)


@pytest.mark.parametrize(
    ("added", "noise", "count"), [(1_500, 0.04, 60), (700, 0.15, 12), (300, 0.0, 5), (0, 0.08, 30)]
)
def test_the_constant_matches_its_formulas(added: float, noise: float, count: int) -> None:
    """Least squares on relative error, with fading weights and a ridge; then shrunk by its own uncertainty."""
    rng = np.random.default_rng(1)
    priced = np.exp(rng.uniform(np.log(100), np.log(8_000), count))
    actual = np.array([round(added + each * rng.normal(1, noise)) for each in priced])
    weights = 0.98 ** np.arange(count - 1, -1, -1)
    rows = np.stack([1 / actual, priced / actual], axis=1)
    normal = rows.T @ (weights[:, None] * rows) + np.diag([(0.05 / 1_000) ** 2, (0.05 / 0.1) ** 2])
    a, b = np.linalg.solve(normal, rows.T @ weights + [0, (0.05 / 0.1) ** 2])
    left = weights @ (1 - rows @ [a, b]) ** 2
    deviation = max(np.sqrt(left / (weights.sum() - 2)), 0.02)
    doubt = 4 * deviation * np.sqrt(np.linalg.inv(normal)[0, 0])
    expected = a * (1 - (doubt / a) ** 2) if a > doubt else 0.0
    assert expected == pytest.approx(learned(added, 1.0, count, noise).tokens)


@pytest.mark.parametrize("factor", [0.8, 0.9, 1.0, 1.1, 1.25])
@pytest.mark.parametrize("seed", range(5))
def test_an_ordinary_tenant_has_none(factor: float, seed: int) -> None:
    """A tenant whose prompts cost more or less by a factor, with scatter, has no constant worth mentioning."""
    assert learned(0, factor, 60, noise=0.08, seed=seed).tokens < 16


def test_one_response_is_not_enough() -> None:
    """After a single response, however far off, nothing is added."""
    extra = Extra()
    extra.learn(200, 2_000)
    assert 0 == extra.tokens


@pytest.mark.parametrize(("priced", "actual"), [(400, 400), (150, 150), (3_000, 3_000), (200, 20_000), (900, 90)])
def test_one_contradiction_moves_a_constant_little(priced: float, actual: float) -> None:
    """A single response without the constant, or with ten times as much, is an outlier and not a change."""
    extra = learned(ADDED, 1.0, 60)
    before = extra.tokens
    extra.learn(priced, actual)
    assert before == pytest.approx(extra.tokens, rel=0.03)
    assert before == pytest.approx(taught(extra, ADDED, 10, 2).tokens, rel=0.03)


@pytest.mark.parametrize("every", [5, 10])
def test_contradictions_now_and_then_do_not_drop_a_constant(every: int) -> None:
    """If a fifth or a tenth of the responses lack the constant, it stays what most of them have."""
    extra = learned(ADDED, 1.0, 60)
    for seed in range(30):
        taught(extra, ADDED, every - 1, seed)
        taught(extra, 0, 1, seed)
        assert ADDED == pytest.approx(extra.tokens, rel=0.2)


def test_a_broken_first_response_is_forgotten() -> None:
    """If the first usages of a tenant were broken, its constant is known a few dozen responses later."""
    extra = Extra()
    extra.learn(200, 20_000)
    extra.learn(300, 300)
    assert ADDED == pytest.approx(taught(extra, ADDED, 35, 1).tokens, rel=0.08)


@pytest.mark.parametrize(("before", "after"), [(ADDED, 0), (ADDED, 700), (700, ADDED), (0, ADDED)])
@pytest.mark.parametrize("seed", range(3))
def test_a_constant_that_changes_is_followed(before: int, after: int, seed: int) -> None:
    """If the server adds another number, or stops adding any, that is known within forty responses."""
    extra = learned(before, 1.0, 100)
    assert after == pytest.approx(taught(extra, after, 40, seed).tokens, rel=0.08, abs=16)


@given(st.lists(st.tuples(st.floats(1, 1e6), st.integers(1, 10**9)), max_size=60))
def test_the_constant_is_bounded_whatever_the_usage(lessons: list[tuple[float, int]]) -> None:
    """It is finite, not negative, and at most the largest usage."""
    extra = Extra()
    for priced, actual in lessons:
        extra.learn(priced, actual)
    assert 0 <= extra.tokens <= 1.01 * max((actual for _, actual in lessons), default=0)


def mixed_tenants(
    estimator: ByteClassEstimator, count: int, added: int
) -> dict[str, list[tuple[float, float, int]]]:
    """Let tenants a and b take turns, with tokens added for b; return likeliest count, bound and truth of each."""
    rng, seen = np.random.default_rng(3), dict[str, list[tuple[float, float, int]]](a=[], b=[])
    for turn in range(count):
        tenant = "b" if turn % 5 == 4 else "a"
        size = int(np.exp(rng.uniform(np.log(300), np.log(4_000))))
        text = (WORDS * 42)[int(rng.integers(50)) :][:size]
        truth = round(size / 4 * rng.normal(1, 0.03)) + (added if tenant == "b" else 0)
        estimate = estimator.estimate(facts(text), tenant)
        seen[tenant].append((estimate.prompt_tokens, estimate.prompt_bound, truth))
        estimator.observe(estimate, Usage(truth))
    return seen


def test_a_constant_affects_only_its_tenants_bounds() -> None:
    """With 1,500 tokens added to one tenant's prompts, its bound holds, and others' bounds are no wider."""
    with_extra = mixed_tenants(ByteClassEstimator(EstimatorSettings()), 1_500, ADDED)
    without = mixed_tenants(ByteClassEstimator(EstimatorSettings()), 1_500, 0)
    late = with_extra["b"][-200:]
    assert sum(truth > bound for _, bound, truth in late) <= 8
    assert np.mean([abs(likely / truth - 1) for likely, _, truth in late]) < 0.05
    widths = [
        np.mean([bound / likely for likely, bound, _ in seen["a"][-400:]]) - 1 for seen in (with_extra, without)
    ]
    assert widths[0] < 1.2 * widths[1]


def test_a_refusal_includes_the_constant() -> None:
    """A refusal that names no more than the constant plus the rest teaches nothing."""
    estimator = ByteClassEstimator(EstimatorSettings())
    mixed_tenants(estimator, 400, ADDED)
    estimate, before = estimator.estimate(facts((WORDS * 20)[:1_600]), "b"), estimator.state()
    estimator.observe_overflow(estimate, Overflow(at_least_prompt_tokens=1_700))
    assert before == estimator.state()


@pytest.mark.parametrize(("before", "count"), [(20, 9), (30, 5), (37, 12)])
def test_a_removed_constant_is_dropped_when_four_responses_fit_better_without(before: int, count: int) -> None:
    """A second fit starts with the latest responses before the change, at most twenty, and replaces the first."""
    extra = learned(ADDED, 1.0, before, noise=0.0)
    tokens = []
    for _ in range(count):
        extra.learn(1_000.0, 1_000.0)
        tokens.append(extra.tokens)
    assert min(tokens[:-1]) > 100
    assert 0.0 == tokens[-1]


def test_prompts_that_were_counted_in_part_do_not_move_a_constant() -> None:
    """A prompt that cost less than half of what its text costs was cut or came from a cache: it proves nothing."""
    extra = learned(ADDED, 1.0, 60)
    before = extra.tokens
    for priced in range(400, 4_400, 200):
        extra.learn(priced, 0.49 * priced)
    assert before == extra.tokens
