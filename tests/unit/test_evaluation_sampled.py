"""The offline run of a router that learns from only some responses, with a tokenizer that needs no vocabulary."""

from math import isnan
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from extproc.core.facts import Api, RequestFacts
from extproc.evaluation.bars import HEAD
from extproc.evaluation.cases import Plan
from extproc.evaluation.mixes import Material
from extproc.evaluation.sampled import DECLARED, MOVED, AppRequest, applications, back_after, sampled, samples
from extproc.evaluation.sampled_report import sampled_report
from extproc.evaluation.tokenizers import Tokenizer
from tests.unit.test_evaluation import words

PLAN = Plan(requests=25, warm_up=20, seeds=(1, 2))
KINDS = ("The quick brown fox jumps. ", "key = {1: 'value'}\n", "2026-01-02 INFO 17 done\n", "| a | bb | ccc |\n")
MATERIAL = Material({kind[:3]: kind.encode() * 300 for kind in KINDS}, [(50, 10), (200, 20), (300, 30)])


@pytest.fixture
def toy(tmp_path: Path) -> Tokenizer:
    """Return a tokenizer of words."""
    return Tokenizer("toy", words, 4, 3, tmp_path)


def test_each_application_declares_its_limit_and_one_moves(toy: Tokenizer) -> None:
    """All requests stream, no output exceeds its limit, and one application's prompts cost more midway."""
    stream = list(applications(MATERIAL, toy, 400, 1))
    assert {0, 1, 2, 3} == {request.application for request in stream}
    for request in stream:
        assert DECLARED[request.application] == request.facts.max_output_tokens
        assert request.facts.stream
        assert request.output_tokens in {10, 20, 30}
    per_byte = [
        np.mean(
            [
                request.tokens / len(request.facts.text)
                for request in half
                if (request.application == MOVED) is moved
            ]
        )
        for moved in (True, False)
        for half in (stream[:200], stream[200:])
    ]
    assert 1.15 < per_byte[1] / per_byte[0] < 1.45
    assert 0.9 < per_byte[3] / per_byte[2] < 1.1


def test_outputs_are_cut_at_what_is_declared(toy: Tokenizer) -> None:
    """A response of a thousand tokens is cut at a declared 256, and complete if nothing is declared."""
    long = Material(MATERIAL.texts, [(50, 1_000)])
    outputs = {request.application: request.output_tokens for request in applications(long, toy, 40, 1)}
    assert {0: 256, 1: 1_000, 2: 1_000, 3: 1_000} == outputs


def app_request(application: int, number: int, tokens: int, output_tokens: int = 10) -> AppRequest:
    """Return a request of a few words, each from a different client."""
    text = f"{number} " + "some words of prose " * (5 + number % 7)
    facts = RequestFacts(Api.CHAT, "m", text.encode(), messages=1, max_output_tokens=DECLARED[application])
    return AppRequest(application, replace(facts, stream=True), round(tokens * len(text) / 100), output_tokens)


def test_a_run_reports_what_was_learned_and_missed() -> None:
    """At one request a second, all are learned from; a change causes misses until its responses arrive."""
    stream = [
        app_request(number % 4, number, 30 if number % 4 == 2 and number >= 400 else 22) for number in range(800)
    ]
    result = sampled(stream, 1.0, PLAN, 1, with_tenants=True)
    assert (1.0, 1.0, 1.0, 1.0) == result.before.learned == result.after.learned
    assert (100, 100, 100, 100) == result.before.responses
    assert result.before.missed[MOVED] < 0.1
    assert 0 < result.after.missed[MOVED] < 0.2
    for half in (result.before, result.after):
        assert half.weighted == pytest.approx(half.all_missed, abs=0.01)
        assert half.unweighted == pytest.approx(half.all_missed, abs=0.01)


def test_a_run_without_a_budget_for_it_learns_little() -> None:
    """At 1,000 requests a second of 1,000 tokens each, hardly any response arrives or is learned from."""
    stream = [app_request(number % 4, number, 22, output_tokens=1_000) for number in range(400)]
    result = sampled(stream, 1_000.0, PLAN, 1, with_tenants=False)
    assert sum(result.before.responses) < 30
    assert isnan(result.after.weighted)  # no response has arrived yet
    assert isnan(result.after.unweighted)


def test_a_change_has_passed_when_at_most_two_of_a_hundred_are_missed() -> None:
    """The first window of a hundred counts; if there is none, the change has not passed."""
    missed = np.array([True] * 40 + [False] * 200)
    assert 38 == back_after(missed)
    assert 0 == back_after(missed[38:])
    assert None is back_after(missed[:137])
    assert None is back_after(np.ones(300, np.bool_))


def test_a_run_reports_when_a_change_had_passed() -> None:
    """It is reported in requests of the application and in seconds, or as never."""
    stream = [app_request(2, number, 22) for number in range(1_000)]
    result = sampled(stream, 2.0, PLAN, 1, with_tenants=True)
    assert (0, 0.0) == (result.back_requests, result.back_s)
    costlier = stream[:500] + [app_request(2, number, 44) for number in range(500)]
    result = sampled(costlier, 2.0, PLAN, 1, with_tenants=True)
    assert 0 < result.back_requests < 60
    assert result.back_s == pytest.approx(result.back_requests / 2, rel=0.5)
    never = stream[:500] + [app_request(2, number, 22 << (number // 20)) for number in range(500)]
    result = sampled(never, 2.0, PLAN, 1, with_tenants=True)
    assert (float("inf"), float("inf")) == (result.back_requests, result.back_s)


def test_the_section_has_the_bars_of_each_rate(toy: Tokenizer) -> None:
    """Each rate has three bars, with tenants and without, and two rows of figures, averaged over seeds."""
    of_toy = samples(MATERIAL, toy, PLAN, lambda _: None)
    text = sampled_report({"toy": of_toy}, PLAN, "dualpool evaluate --only budget")
    assert "Written by `dualpool evaluate --only budget`." in text
    assert "quarter of 200 requests" in text
    assert 1 == text.count(HEAD)
    assert 12 == text.count("| met |") + text.count("**missed")
    assert "| 8,192-token class, 20 per second, with tenants: not learned from, at most | " in text
    for rate in ("20, with tenants", "20, without tenants", "100, with tenants", "100, without tenants"):
        assert f"| {rate}, before | " in text
        assert f"| {rate}, after | " in text


def test_no_change_makes_more_tokens_than_bytes(tmp_path: Path) -> None:
    """Text that already costs a token per byte gets no costlier, since higher usage would be rejected."""
    of_bytes = Tokenizer("bytes", lambda text: list(text.encode()), 4, 3, tmp_path)
    for each in applications(MATERIAL, of_bytes, 200, 1):
        assert len(each.facts.text) + 7 == each.tokens
