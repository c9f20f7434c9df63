"""Plans for stated fleets, and everything that the command says about them."""

import json
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from extproc.cli import main as command_line
from extproc.planning.design import plan as planning
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.model.setup import Setup
from extproc.planning.simulation.fleet import PoolUse
from extproc.planning.simulation.runner import FleetEstimate, NotMet
from extproc.planning.simulation.search import FoundFleet
from extproc.planning.simulation.summary import ClassFigures, Latency, PoolFigures, Summary
from extproc.planning.simulation.task import Design, FailureRun, SearchTask
from tests.unit.planning_command import write_trace

LONG = 65_536


QUESTION: tuple[str, ...] = (
    "--rate",
    "20",
    "--model",
    "llama-3-8b",
    "--gpu",
    "h100-80g",
    "--times",
    "roofline",
    "--simulate",
    *("--cache", "none", "--threshold", "2048", "--tune", "none"),
)


@dataclass(frozen=True)
class Fleet:
    """A stated fleet: thresholds, instances and GPUs per instance of each pool, and its settings."""

    name: str
    thresholds: tuple[int, ...]
    instances: tuple[int, ...]
    gpus: tuple[int, ...]
    gpu: str = "h100-80g"
    long_prefill_tokens: int = 0
    not_steady: str = ""
    not_judged: tuple[str, ...] = ()

    def estimate(self, setup: Setup) -> FleetEstimate:
        """Return the fleet as if a search had found it."""
        contexts = (*self.thresholds, LONG)
        setups = tuple(self._setup(setup, gpus) for gpus in self.gpus)
        lens = tuple(min(LONG, -(-context * 5 // 4 // 16) * 16) for context in contexts)
        design = Design(self.name, contexts, setups, lens)
        found = FoundFleet(design, 1, self.instances, self._summary(contexts), 9, 12_000, self.not_steady)
        total = float(sum(self.instances))
        return FleetEstimate(design, (found,), total, 1.0, found, self.not_steady, self.not_judged)

    def _setup(self, setup: Setup, gpus: int) -> Setup:
        known = built_in().gpu(self.gpu)
        instance = replace(setup.instance, gpu=known, tensor_parallel=gpus)
        price = setup.price_usd_h if self.gpu == "h100-80g" else known.price_usd_h
        return replace(
            setup,
            gpu_name=self.gpu,
            instance=instance,
            price_usd_h=price,
            long_prefill_tokens=self.long_prefill_tokens,
        )

    def _summary(self, contexts: tuple[int, ...]) -> Summary:
        latency = Latency(1_000, 0.125 * len(contexts), 1.375, 0.021, 0.043)
        felt = ClassFigures("<= 2,048", 2_048, latency, (0.001, 0.0), 0.25)
        pool = PoolFigures(latency, (1, 0), ((1, 0),))
        pools = tuple(
            PoolUse(f"{context:,}", n, 12.0, 0.34, 5) for context, n in zip(contexts, self.instances, strict=True)
        )
        curve = tuple(0.02 * n for n in range(101))
        shares = {"success": 0.9991, "rejected": 0.0002, "truncated": 0.0007, "misrouted": 0.0123}
        return Summary(
            all=latency,
            judged=(felt,),
            by_length=(felt,),
            by_pool=(pool,) * len(contexts),
            pools=pools,
            under_counted=0.01,
            preemptions_per_1000=4.2,
            ttft_curve_s=curve,
            warm_up=0.1,
            too_short=False,
            **shares,
        )


USUAL = Fleet("one pool, vLLM's defaults", (), (40,), (1,))


TUNED = Fleet("one pool of 65,536, tuned", (), (12,), (2,), long_prefill_tokens=256)


TWO = Fleet("two pools at 2,048", (2_048,), (5, 3), (1, 4))


CASES: dict[str, tuple[str, Sequence[Fleet | str], tuple[str, ...]]] = {
    "one pool": ("one pool of 65,536, tuned", [USUAL, TUNED, replace(TWO, instances=(20, 6))], ()),
    "two pools": ("two pools at 2,048", [USUAL, TUNED, TWO], ()),
    "two pools that cost a stated price": ("two pools at 2,048", [USUAL, TUNED, TWO], ("--price", "2.5")),
    "no spares": ("two pools at 2,048", [USUAL, TUNED, TWO], ("--spare", "0")),
    "within the noise": ("one pool of 65,536, tuned", [TUNED, replace(TWO, instances=(12, 3))], ()),
    "three pools": (
        "three pools at 1,024 and 8,192",
        [USUAL, TUNED, TWO, Fleet("three pools at 1,024 and 8,192", (1_024, 8_192), (3, 2, 1), (1, 2, 2))],
        (),
    ),
    "other GPUs": ("two pools at 2,048", [USUAL, replace(TUNED, instances=(30,)), replace(TWO, gpu="mi300x")], ()),
    "fewer GPUs that cost more": (
        "one pool of 65,536, tuned",
        [USUAL, TUNED, replace(TWO, gpu="mi300x", instances=(5, 3))],
        (),
    ),
    "no price known": (
        "two pools at 2,048",
        [replace(each, gpu="b200") for each in (USUAL, TUNED, TWO)],
        ("--gpu", "b200"),
    ),
    "only two pools": (
        "two pools at 2,048",
        ["one pool, tuned: no fleet that was tried meets the objective", TWO],
        (),
    ),
    "only one pool": (
        "one pool of 65,536, tuned",
        [TUNED, "two pools: no fleet that was tried meets the objective"],
        (),
    ),
    "nothing steady": ("", [replace(each, not_steady="runs do not agree") for each in (TUNED, TWO)], ()),
    "one pool that is not steady": (
        "two pools at 2,048",
        [replace(TUNED, not_steady="runs do not agree"), TWO],
        (),
    ),
    "two pools that are not steady": (
        "one pool of 65,536, tuned",
        [USUAL, TUNED, replace(TWO, not_steady="runs do not agree")],
        (),
    ),
    "two pools that spill": ("two pools at 2,048", [USUAL, TUNED, TWO], ("--spill",)),
    "two pools by the paper's estimator": ("two pools at 2,048", [USUAL, TUNED, TWO], ("--router", "ema")),
    "two pools by the oracle": ("two pools at 2,048", [USUAL, TUNED, TWO], ("--router", "oracle")),
    "a class that is not judged": ("two pools at 2,048", [USUAL, TUNED, replace(TWO, not_judged=("longer",))], ()),
}


@dataclass(frozen=True)
class Said:
    """Everything that a plan outputs: its JSON, its text, its page, and the files of `--apply`."""

    recommended: str
    plan: dict[str, Any]
    text: str
    page: str
    files: dict[str, str]

    @property
    def fleet(self) -> dict[str, Any]:
        """Return the recommended fleet from the JSON."""
        return next(each for each in self.plan["fleets"] if each["design"]["name"] == self.recommended)


PAGES = {"one pool", "three pools", "other GPUs", "nothing steady"}  # others have no page: plots take a second


def asked(case: str, folder: Path, patch: pytest.MonkeyPatch) -> Said:
    """Run the command for one case: as text, and as JSON with files and, for some cases, the page."""
    recommended, fleets, options = CASES[case]
    question = ["plan", "--trace", str(write_trace(folder / "t.csv")), *QUESTION, *options]
    page = ["--report", str(folder / "page")] if case in PAGES else []
    patch.setattr(command_line, "COMMANDS", ("plan",))
    patch.setenv("COLUMNS", "400")
    patch.setattr(planning, "search_each", stated(fleets))
    patch.setattr(planning, "_designs", lambda question, *_: ([_named(f, question.setup) for f in fleets], []))
    patch.setattr(planning, "run_with_failure", lambda _, instances: FailureRun(instances, 12_000, 17, ()))
    text = output_of(question, 0)
    files_too = [*question, "--json", *page, "--apply", str(folder / "files")]
    # Without a recommendation there is nothing to write, which is reported after the plan.
    printed = output_of(files_too, 0 if recommended else 2)
    if page and not recommended:
        output_of([*question, *page], 0)
    files = {path.name: path.read_text() for path in (folder / "files").glob("*")}
    written = folder / "page/index.html"
    return Said(recommended, json.loads(printed), text, written.read_text() if page else "", files)


def _named(fleet: Fleet | str, setup: Setup) -> Design:
    return Design(fleet, (LONG,)) if isinstance(fleet, str) else fleet.estimate(setup).design


def stated(fleets: Sequence[Fleet | str]) -> Callable[..., tuple[FleetEstimate | NotMet, ...]]:
    """Return a search that finds the stated fleets, or refuses with the stated sentences."""

    def search(tasks: Sequence[SearchTask], *_: object) -> tuple[FleetEstimate | NotMet, ...]:
        return tuple(
            NotMet(task.design, fleet) if isinstance(fleet, str) else fleet.estimate(task.setup)
            for task, fleet in zip(tasks, fleets, strict=True)
        )

    return search


def output_of(arguments: list[str], exits: int) -> str:
    """Run the command, and return its standard output."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()):
        assert exits == command_line.main(arguments)
    return out.getvalue()
