"""Balancing as the last knob: each design ends with its own rule, and all output about the design names it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from extproc.cli import main as command_line
from extproc.planning.design import plan as planning
from extproc.planning.design import rules
from extproc.planning.design.choose import Question, Sized
from extproc.planning.design.pool import PoolChoice, Tuning
from extproc.planning.design.rules import cheapest_outcomes, cheapest_rules, sized_under_rules
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.instance import Instance
from extproc.planning.model.costs import costs_of
from extproc.planning.model.objective import Objective
from extproc.planning.model.setup import Setup
from extproc.planning.model.splits import Analysis
from extproc.planning.simulation.balancing import Balance, Balancing
from extproc.planning.simulation.cache import ResultCache
from extproc.planning.simulation.options import RunOptions, SimulationOptions, runs_of
from extproc.planning.simulation.runner import FleetEstimate, NotMet
from extproc.planning.simulation.task import Design, FailureRun, SearchTask
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths
from tests.unit.planning_cases import QUESTION, Fleet, output_of
from tests.unit.planning_command import write_trace
from tests.unit.test_planning_one_answer import document, lines_of, rows_of

LONG = 65_536
ENVOYS, SCAN, TOKENS = Balancing(), Balancing(Balance.FULL_SCAN), Balancing(Balance.TOKENS)
RUNS = RunOptions(2_000, 2_000, 1, (), "oracle", ENVOYS, "poisson", 1, also=(TOKENS,))
LIMITS = [(LONG,), (512, LONG), (1_024, LONG), (2_048, LONG), (4_096, LONG)]
Costs = dict[Balancing, dict[tuple[int, ...], float]]


def question() -> Question:
    """Return a question; search results are stated, not simulated."""
    instance = Instance(built_in().model("llama-3-8b"), built_in().gpu("h100-80g"), 1)
    setup = Setup("llama-3-8b", "h100-80g", instance, LONG, Objective(), price_usd_h=2.0)
    lengths = Lengths(np.full(100, 500), np.full(100, 100), "alike")
    return Question(lengths, 10, setup, DeclaredRule.TRUTH, ENVOYS, Tuning())


def state(costs: Costs, patch: pytest.MonkeyPatch) -> list[tuple[Balancing, list[tuple[int, ...]]]]:
    """Let each design cost what is stated (designs not listed meet no
    objective); return the searches that are made.
    """
    asked: list[tuple[Balancing, list[tuple[int, ...]]]] = []

    def sized(asks: Question, limits: Sequence[tuple[int, ...]], *_: object) -> list[Sized]:
        asked.append((asks.balancing, list(limits)))
        own = costs[asks.balancing]
        return [Sized(each, (PoolChoice(asks.setup, 1, own[each]),)) for each in limits if each in own]

    patch.setattr(rules, "sized_designs", sized)
    return asked


def under(runs: RunOptions) -> list[Sized]:
    """Search the designs of LIMITS under the rules of these runs."""
    return sized_under_rules(question(), LIMITS, runs, ResultCache(None), lambda *_: None)


FIRST = dict(zip(LIMITS, (9.0, 14.0, 12.0, 11.0, 13.0), strict=True))


def test_the_best_few_designs_are_searched_under_the_other_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rule is searched for all designs; the others for one pool and the two cheapest thresholds."""
    asked = state({ENVOYS: FIRST, TOKENS: FIRST}, monkeypatch)
    assert 5 + 3 == len(under(RUNS))
    assert [(ENVOYS, LIMITS), (TOKENS, [(LONG,), (2_048, LONG), (1_024, LONG)])] == asked


def test_all_designs_are_searched_if_the_first_rule_misses_the_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    """A design with which Envoy's rule misses the objective may be the best under another rule."""
    asked = state({ENVOYS: {(2_048, LONG): 11.0}, TOKENS: {(LONG,): 8.0}}, monkeypatch)
    found = under(RUNS)
    assert (TOKENS, [(LONG,), (2_048, LONG)]) == asked[1]
    assert [((2_048, LONG), ENVOYS), ((LONG,), TOKENS)] == [(each.limits, each.balancing) for each in found]


def test_thresholds_that_are_given_are_all_searched_under_each_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who names thresholds wants results for all of them."""
    asked = state({ENVOYS: FIRST, TOKENS: FIRST}, monkeypatch)
    under(replace(RUNS, thresholds=(512, 1_024, 2_048, 4_096)))
    assert [(ENVOYS, LIMITS), (TOKENS, LIMITS)] == asked


def test_a_single_rule_is_searched_once_and_named_by_no_design(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan itself names it."""
    asked = state({ENVOYS: FIRST}, monkeypatch)
    assert [None] * 5 == [each.balancing for each in under(replace(RUNS, also=()))]
    assert [(ENVOYS, LIMITS)] == asked


@pytest.mark.parametrize("tuning", [Tuning(), Tuning(parallelism=False, knobs=False)], ids=["all", "none"])
def test_each_design_has_its_own_rule_or_the_first_if_no_other_is_cheaper(
    tuning: Tuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pool is cheaper by tokens, two pools are not. The fleets are simulated accordingly, alongside one pool
    with defaults; one pool also under the first rule, since the search of single pools is rough.
    """
    tokens = FIRST | {(LONG,): 8.0, (1_024, LONG): 11.0}
    state({ENVOYS: FIRST, TOKENS: tokens}, monkeypatch)
    assert {TOKENS} == {each.balancing for each in cheapest_rules(under(RUNS)) if each.limits == (LONG,)}
    monkeypatch.setattr(planning, "_thresholds", lambda *_: (512, 1_024, 2_048, 4_096))
    designs, searched = planning._designs(
        question(), cast("Analysis", None), planning.PlanOptions(RUNS, tuning), ResultCache(None), lambda *_: None
    )
    assert sorted(
        [
            ("one pool, vLLM's defaults", ENVOYS),
            ("one pool of 65,536, tuned", ENVOYS),
            ("one pool of 65,536, tuned", TOKENS),
            ("two pools at 2,048", ENVOYS),
        ],
        key=str,
    ) == sorted(((each.name, each.balancing) for each in designs), key=str)
    assert 5 + 3 == len(searched)
    assert [each.balancing for each in designs] == [
        planning._task(question(), each, RUNS).balancing for each in designs
    ]


def test_rules_keep_the_order_of_their_names_without_duplicates() -> None:
    """The first name is the leading rule."""
    asked = SimulationOptions(balance=("tokens", "least-request", "tokens"), choice_count=3)
    runs = runs_of(asked, question().lengths, 100)
    assert (Balancing(Balance.TOKENS, 3), (Balancing(Balance.LEAST_REQUEST, 3),)) == (runs.balancing, runs.also)
    assert () == runs_of(SimulationOptions(), question().lengths, 100).also


USUAL = Fleet("one pool, vLLM's defaults", (), (40,), (1,))
TUNED = Fleet("one pool of 65,536, tuned", (), (12,), (2,))
TWO = Fleet("two pools at 2,048", (2_048,), (5, 3), (1, 4))


def under_rule(fleet: Fleet, rule: Balancing) -> FleetEstimate:
    """Return a stated fleet, balanced by a rule."""
    estimate = fleet.estimate(question().setup)
    return replace(estimate, design=replace(estimate.design, balancing=rule))


SMALLER = replace(TUNED, instances=(11,))
BY_ENVOY, NO_CHEAPER, CHEAPER = under_rule(TUNED, ENVOYS), under_rule(TUNED, TOKENS), under_rule(SMALLER, TOKENS)
UNMET = NotMet(BY_ENVOY.design, "P99 TTFT 3 s")


@pytest.mark.parametrize(
    ("outcomes", "kept"),
    [
        ([BY_ENVOY, NO_CHEAPER], BY_ENVOY),
        ([BY_ENVOY, CHEAPER], CHEAPER),
        ([BY_ENVOY, replace(CHEAPER, not_steady="runs do not agree")], BY_ENVOY),
        ([replace(BY_ENVOY, not_steady="runs do not agree"), NO_CHEAPER], NO_CHEAPER),
        ([UNMET, NO_CHEAPER], NO_CHEAPER),
        ([UNMET, NotMet(CHEAPER.design, "P99 TTFT 4 s")], UNMET),
    ],
)
def test_a_design_takes_another_rule_only_if_its_whole_fleet_is_cheaper(
    outcomes: list[FleetEstimate | NotMet], kept: FleetEstimate | NotMet
) -> None:
    """An endpoint picker that saves nothing is not proposed, nor one whose fleet is not known to be steady."""
    other = under_rule(TWO, ENVOYS)
    assert (kept, other) == cheapest_outcomes([*outcomes, other], costs_of(question().setup))


def said(
    one: Balancing, two: Balancing, fleets: Sequence[Fleet], folder: Path, patch: pytest.MonkeyPatch
) -> tuple[str, str, dict[str, str]]:
    """Run the command with stated fleets; return its text, its page, and the files."""
    own = [ENVOYS, one, two]

    def estimates(setup: Setup) -> list[FleetEstimate]:
        found = [each.estimate(setup) for each in fleets]
        return [
            replace(each, design=replace(each.design, balancing=rule))
            for each, rule in zip(found, own, strict=True)
        ]

    def designs(asks: Question, *_: object) -> tuple[list[Design], list[Sized]]:
        sized = [Sized((LONG,), (PoolChoice(asks.setup, 7, 7.0),), rule) for rule in (ENVOYS, TOKENS)]
        return [each.design for each in estimates(asks.setup)], sized

    def search(tasks: Sequence[SearchTask], *_: object) -> tuple[FleetEstimate, ...]:
        assert own == [task.balancing for task in tasks]
        return tuple(estimates(tasks[0].setup))

    patch.setattr(command_line, "COMMANDS", ("plan",))
    patch.setenv("COLUMNS", "400")
    patch.setattr(planning, "search_each", search)
    patch.setattr(planning, "_designs", designs)
    patch.setattr(planning, "run_with_failure", lambda _, instances: FailureRun(instances, 12_000, 17, ()))
    asked = ["plan", "--trace", str(write_trace(folder / "t.csv")), *QUESTION]
    asked += ["--balance", "least-request", "full-scan", "tokens", "--apply", str(folder), "--report", str(folder)]
    text = output_of(asked, 0)
    return (
        text,
        (folder / "index.html").read_text(),
        {each.name: each.read_text() for each in folder.glob("*.yaml")},
    )


def test_a_recommendation_names_its_balancing_and_what_envoy_cannot_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pools by tokens against one pool by a full scan: sentence, table, page and files say so."""
    pytest.importorskip("matplotlib", reason="the report needs matplotlib")
    text, page, files = said(SCAN, TOKENS, [USUAL, TUNED, TWO], tmp_path, monkeypatch)
    sentence = " ".join(text[text.rindex("two pools at 2,048 (") :].split())
    assert "balanced by fewest unanswered prompt tokens, which needs an endpoint picker): 22 GPUs" in sentence
    assert "instead of 26 (balanced by LEAST_REQUEST, FULL_SCAN)" in sentence
    assert sentence.endswith(
        "what they save on one pool, vLLM's defaults (balanced by LEAST_REQUEST, choice_count 2) (simulated)"
    )
    assert "LEAST_REQUEST, choice_count 2 or LEAST_REQUEST, FULL_SCAN or fewest unanswered" in text
    rows = {
        "one pool of 65,536, tuned LEAST_REQUEST, FULL_SCAN Envoy",
        "two pools at 2,048 fewest unanswered prompt tokens an endpoint picker",
    }
    assert rows <= lines_of(text)
    searched = {
        "one pool 7 x 1 7 LEAST_REQUEST, choice_count 2",
        "one pool 7 x 1 7 fewest unanswered prompt tokens",
    }
    assert rows | searched <= {" ".join(row) for row in rows_of(page)}
    assert "Envoy alone cannot balance by prompt tokens: use an endpoint picker." in files["envoy.yaml"]
    assert "which needs an endpoint picker" in files["dualpool.yaml"]


def test_envoys_file_is_for_the_chosen_design(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pool by a full scan is kept, so its file configures a full scan, whichever rule was named first; the
    sentence gives the rule of the two pools.
    """
    pytest.importorskip("matplotlib", reason="the report needs matplotlib")
    expensive = replace(TWO, instances=(20, 6))
    text, _, files = said(SCAN, TOKENS, [USUAL, TUNED, expensive], tmp_path, monkeypatch)
    (cluster,) = document(files["envoy.yaml"])["clusters"]
    (policy,) = cluster["load_balancing_policy"]["policies"]
    assert "FULL_SCAN" == policy["typed_extension_config"]["typed_config"]["selection_method"]
    assert "two pools at 2,048 (balanced by fewest unanswered prompt tokens) need 49 GPUs" in text
