"""Options of `dualpool plan` that cannot take effect beside the others: they are refused, not ignored.

A rule is only asked about an option that differs from its default. What depends on the contents of files (times in
a trace, a model's experts) is checked where they are read.
"""

import argparse
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from extproc.cli.plan_simulation import searches_knobs, searches_parallelism
from extproc.core.errors import ConfigurationError

__all__ = ["RULES", "Unused", "paper_rules", "refuse_unused"]

Arguments = argparse.Namespace
PAPER_USES = frozenset({"what", "trace", "requests", "seeds", "jobs", "cache", "json", "run", "defaults"})
SIMULATION = (
    *("threshold", "tune", "pools", "head_room", "requests", "seeds", "router", "balance", "choice_count"),
    *("day_curve", "start_minutes", "spill", "arrivals", "jobs", "cache", "apply"),
)
TIMES = ("times", "slots", "batched_tokens", "prefix_cache", "ttft", "tpot_ms", "objective")


@dataclass(frozen=True, slots=True)
class Unused:
    """An option (its name in the parsed arguments), when it has no effect, and what would give it one."""

    option: str
    when: Callable[[Arguments], bool]
    why: str


def _several_without_search(args: Arguments) -> bool:
    return len(args.gpu) > 1 and (not args.simulate or args.tune == "none" or args.price is not None)


def _nothing_is_searched(args: Arguments) -> bool:
    searched = searches_parallelism(args) or searches_knobs(args)
    return not searched and len(args.gpu) == 1 and len(args.balance) == 1


def _repeats(option: str) -> Callable[[Arguments], bool]:
    return lambda args: len(set(getattr(args, option))) < len(getattr(args, option))


def _every_class_has(time: str) -> Callable[[Arguments], bool]:
    """Return a function that says whether no class of --objective takes a time from that time's own option."""

    def named(args: Arguments) -> bool:
        # Imported here because --help does not need the planner.
        from extproc.planning.model.objective import Objective, parse_objective  # noqa: PLC0415

        if args.objective is None:
            return False
        defaults = (Objective(ttft_s=s) if time == "ttft" else Objective(tpot_s=s) for s in (1.0, 2.0))
        one, other = (parse_objective(args.objective, default) for default in defaults)
        return one == other

    return named


RULES = (
    *(Unused(each, lambda args: not args.simulate, "is only used with --simulate") for each in SIMULATION),
    *(
        Unused(each, _repeats(each), "one of them is given twice")
        for each in ("trace", "gpu", "balance", "threshold")
    ),
    Unused(
        "gpu",
        _several_without_search,
        "several are compared with --simulate and by the catalogue's prices, not with --tune none or --price",
    ),
    Unused(
        "pools",
        _nothing_is_searched,
        "three pools are only found by a search, and there is none with --tune none or where --tp, --dp and "
        "--batched-tokens leave nothing to it",
    ),
    Unused(
        "pools",
        lambda args: len(args.threshold) == 1,
        "three pools have two thresholds, and --threshold is one; several are needed, or none",
    ),
    Unused(
        "tune",
        lambda args: args.tune == "parallelism" and not searches_parallelism(args),
        "is not searched where --tp or --dp is given; all or none is possible",
    ),
    Unused(
        "choice_count",
        lambda args: "least-request" not in args.balance,
        "is only used with --balance least-request",
    ),
    Unused(
        "arrivals",
        lambda args: args.arrivals == "trace" and args.day_curve == "trace",
        "takes --rate as the mean of the whole trace, and --day-curve trace as its peak: its ups and downs would "
        "count twice",
    ),
    Unused("start_minutes", lambda args: args.day_curve is None, "is only used with --day-curve"),
    *(
        Unused(each, lambda args: not args.metrics, "is only used with --metrics")
        for each in ("metrics_model", "scrape_interval")
    ),
    Unused(
        "scrape_interval",
        lambda args: args.rate is not None and len(args.metrics) > 1,
        "is only used to compute the rate of two scrapes, and --rate gives it",
    ),
    *(
        Unused(
            each,
            lambda args: args.measured is not None and not args.simulate,
            "is not used with --measured, whose rates are taken as they are, unless --simulate is given",
        )
        for each in TIMES
    ),
    *(
        Unused(
            option,
            _every_class_has(time),
            f"is not used where each class of --objective has a {time} of its own",
        )
        for option, time in (("ttft", "ttft"), ("tpot_ms", "tpot"))
    ),
)


def paper_rules(args: Arguments) -> tuple[Unused, ...]:
    """Return the rules of `dualpool plan paper`, which uses few options."""
    others = vars(args).keys() - PAPER_USES
    return tuple(Unused(each, lambda _: True, "is not used by `dualpool plan paper`") for each in sorted(others))


def refuse_unused(args: Arguments, rules: Iterable[Unused]) -> None:
    """Raise ConfigurationError for the first option that is given but would have no effect."""
    for rule in rules:
        value = getattr(args, rule.option)
        if value != getattr(args.defaults, rule.option, value) and rule.when(args):
            raise ConfigurationError(f"--{rule.option.replace('_', '-')}{_text(value)}: {rule.why}")


def _text(value: object) -> str:
    """Return an option's value as it is written behind the option."""
    if value is True:
        return ""
    values = value if isinstance(value, list) else [value]
    return "".join(f" {each:g}" if isinstance(each, float) else f" {shlex.quote(str(each))}" for each in values)
