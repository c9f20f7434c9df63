"""Options of `dualpool plan` that cannot take effect are refused with a sentence that names them and their value.

Every option of the command is in one of two lists: those that need others, and those that do not.
"""

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from extproc.cli import main as command_line
from extproc.cli import plan
from extproc.cli.plan_simulation import add_simulation_options
from extproc.cli.plan_unused import RULES, refuse_unused
from tests.unit.planning_command import refusal_of, write_trace

Parsed = Callable[[list[str]], argparse.Namespace]
SIMULATE, FIXED = ["--simulate"], ["--simulate", "--tp", "8", "--batched-tokens", "2048"]
MEASURED = ["--measured", "2.8,11.2,2.8"]
ONE_OBJECTIVE = ["--objective", "<=8192: ttft 2s; else: ttft 30s, tpot 99ms"]
NEEDS_SIMULATE = "is only used with --simulate"
NEEDS_SEARCH = "three pools are only found by a search, and there is none with --tune none"
AS_MEASURED = "is not used with --measured, whose rates are taken as they are, unless --simulate is given"
# Each option that needs others: the option and its value, what else is given, and the rest of the sentence.
DEPENDENT: list[tuple[list[str], list[str], str]] = [
    (["--threshold", "4096", "8192"], [], NEEDS_SIMULATE),
    (["--tune", "none"], [], NEEDS_SIMULATE),
    (["--pools", "3"], [], NEEDS_SIMULATE),
    (["--head-room", "2"], [], NEEDS_SIMULATE),
    (["--requests", "5000"], [], NEEDS_SIMULATE),
    (["--seeds", "2"], [], NEEDS_SIMULATE),
    (["--router", "ema"], [], NEEDS_SIMULATE),
    (["--balance", "tokens", "full-scan"], [], NEEDS_SIMULATE),
    (["--choice-count", "3"], [], NEEDS_SIMULATE),
    (["--day-curve", "trace"], [], NEEDS_SIMULATE),
    (["--start-minutes", "9"], [], NEEDS_SIMULATE),
    (["--spill"], [], NEEDS_SIMULATE),
    (["--arrivals", "trace"], [], NEEDS_SIMULATE),
    (["--jobs", "2"], [], NEEDS_SIMULATE),
    (["--cache", "none"], [], NEEDS_SIMULATE),
    (["--apply", "out"], [], NEEDS_SIMULATE),
    (["--gpu", "h200", "h100-80g"], [], "several are compared with --simulate and by the catalogue's prices"),
    (["--gpu", "h200", "h100-80g"], [*SIMULATE, "--tune", "none"], "several are compared with --simulate"),
    (["--gpu", "h200", "h100-80g"], [*SIMULATE, "--price", "2"], "several are compared with --simulate"),
    (["--trace", "t.csv", "t.csv"], [], "one of them is given twice"),
    (["--gpu", "h200", "h200"], SIMULATE, "one of them is given twice"),
    (["--balance", "tokens", "tokens"], SIMULATE, "one of them is given twice"),
    (["--threshold", "4096", "4096"], SIMULATE, "one of them is given twice"),
    (["--pools", "3"], [*SIMULATE, "--tune", "none"], NEEDS_SEARCH),
    (["--pools", "3"], FIXED, NEEDS_SEARCH),
    (
        ["--pools", "3"],
        [*SIMULATE, "--threshold", "4096"],
        "three pools have two thresholds, and --threshold is one",
    ),
    (["--tune", "parallelism"], [*SIMULATE, "--tp", "8"], "is not searched where --tp or --dp is given"),
    (
        ["--choice-count", "3"],
        [*SIMULATE, "--balance", "round-robin", "tokens"],
        "is only used with --balance least-request",
    ),
    (["--start-minutes", "9"], SIMULATE, "is only used with --day-curve"),
    (["--arrivals", "trace"], [*SIMULATE, "--day-curve", "trace"], "takes --rate as the mean of the whole trace"),
    (["--requests", "5000"], [*SIMULATE, "--arrivals", "trace"], "not used with --arrivals trace"),
    (["--spill"], [*SIMULATE, "--router", "oracle"], "needs --router byteclass or ema"),
    (["--metrics-model", "m"], [], "is only used with --metrics"),
    (["--scrape-interval", "5"], [], "is only used with --metrics"),
    (
        ["--scrape-interval", "5"],
        ["--metrics", "first", "second"],
        "is only used to compute the rate of two scrapes",
    ),
    (["--ttft", "3"], ONE_OBJECTIVE, "is not used where each class of --objective has a ttft of its own"),
    (
        ["--tpot-ms", "70"],
        ["--objective", "else: tpot 90ms"],
        "is not used where each class of --objective has a tpot of its own",
    ),
    (["--times", "roofline"], MEASURED, AS_MEASURED),
    (["--slots", "worst-case"], MEASURED, AS_MEASURED),
    (["--batched-tokens", "1024"], MEASURED, AS_MEASURED),
    (["--prefix-cache", "0.5"], MEASURED, AS_MEASURED),
    (["--ttft", "3"], MEASURED, AS_MEASURED),
    (["--tpot-ms", "70"], MEASURED, AS_MEASURED),
    (["--objective", "else: ttft 9s"], MEASURED, AS_MEASURED),
]
# Options that have an effect on every plan of their source, and those that say where the answer goes.
ALWAYS = {
    *("--metrics", "--mean-tokens", "--rate", "--declared", "--model", "--catalogue", "--weight-bytes"),
    *("--kv-bytes", "--spare", "--price", "--engine", "--long-context", "--tp", "--dp", "--measured", "--success"),
    *("--simulate", "--json", "--report", "--help"),
}


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[list[str]], str]:
    """Return a function that expects one line of error from a plan of a trace, and returns it."""
    monkeypatch.setattr(command_line, "COMMANDS", ("plan",))
    trace = str(write_trace(tmp_path / "trace.csv"))
    return lambda arguments: refusal_of(["--trace", trace, "--rate", "9", *arguments], capsys)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Parsed:
    """Return a function that parses arguments of `dualpool plan`."""
    monkeypatch.setattr(command_line, "COMMANDS", ("plan",))
    return lambda arguments: command_line._parser(["plan"]).parse_args(["plan", *arguments])


@pytest.mark.parametrize(("option", "others", "why"), DEPENDENT)
def test_an_option_without_effect_is_refused_with_its_value(
    option: list[str], others: list[str], why: str, refused: Callable[[list[str]], str]
) -> None:
    """The sentence names the option and its value, and what would give it an effect."""
    said = refused([*others, *option])
    assert said.startswith(f"dualpool plan: {' '.join([option[0], shlex.join(option[1:])]).strip()}: {why}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--simulate", "--pools", "3"],
        ["--simulate", "--pools", "3", "--threshold", "4096", "8192"],
        ["--simulate", "--pools", "3", "--tune", "none", "--balance", "tokens", "full-scan"],
        ["--simulate", "--pools", "3", "--tp", "8", "--batched-tokens", "2048", "--gpu", "h200", "h100-80g"],
        ["--simulate", "--choice-count", "3", "--balance", "tokens", "least-request"],
        ["--simulate", "--tune", "parallelism", "--batched-tokens", "2048"],
        ["--simulate", "--tune", "none", "--tp", "8"],
        ["--simulate", "--measured", "2.8,11.2,2.8", "--ttft", "3", "--slots", "worst-case"],
        ["--simulate", "--day-curve", "d.csv", "--start-minutes", "9"],
        ["--simulate", "--day-curve", "d.csv", "--arrivals", "trace"],
        ["--objective", "<=8192: ttft 2s; else: tpot 99ms", "--ttft", "3", "--tpot-ms", "70"],
        ["--measured", "2.8,11.2,2.8", "--kv-bytes", "1", "--long-context", "32768", "--price", "2"],
        ["--metrics", "m", "--metrics-model", "m", "--rate", "5"],
        ["--metrics", "first", "second", "--scrape-interval", "60"],
        ["--metrics", "http://router/metrics", "--scrape-interval", "60", "--rate", "5"],
    ],
)
def test_an_option_that_has_an_effect_is_not_refused(arguments: list[str], parsed: Parsed) -> None:
    """What an option needs is enough."""
    refuse_unused(parsed(arguments), RULES)


def test_every_option_is_known_to_depend_on_others_or_not() -> None:
    """This covers options that are added later, too: none is silently ignored."""
    parser = argparse.ArgumentParser()
    plan.add(parser.add_subparsers())
    (subparsers,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    options = {each.option_strings[-1] for each in subparsers.choices["plan"]._actions if each.option_strings}
    dependent = {option[0] for option, _, _ in DEPENDENT}
    assert options == dependent | ALWAYS
    assert dependent.isdisjoint(ALWAYS)


def test_every_option_of_the_simulation_needs_it() -> None:
    """The group of options in --help is the list of those that are refused without --simulate."""
    parser = argparse.ArgumentParser()
    add_simulation_options(parser)
    group = {each.option_strings[0] for each in parser._actions} - {"-h", "--simulate"}
    assert group | {"--apply"} == {option[0] for option, _, why in DEPENDENT if why == NEEDS_SIMULATE}


def test_every_rule_is_tested() -> None:
    """Each is the reason of a refusal above."""
    for rule in RULES:
        option = f"--{rule.option.replace('_', '-')}"
        assert any(option == given[0] and rule.why.startswith(why) for given, _, why in DEPENDENT), rule
