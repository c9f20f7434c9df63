"""Benefit and cost of sharing: replicas that each see a part compared with one that saw all, and CPU time."""

import asyncio
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.measuring import Plan, Table
from bench.stack import Stack
from extproc.core.errors import ConfigurationError
from extproc.core.estimator import make_estimator
from extproc.core.estimator.packing import Numbers
from extproc.core.estimator.protocol import CategoryKey, CategoryState, Estimator, LearnedState
from extproc.core.estimator.settings import ByteClassSettings, EstimatorSettings
from extproc.core.estimator.state_tables import tables_of
from extproc.core.estimator.terms import Terms
from extproc.core.usage import Usage
from extproc.evaluation.mixes import Material, mixed
from extproc.evaluation.requests import Request
from extproc.evaluation.texts import all_texts
from extproc.evaluation.tokenizers import tokenizer
from extproc.state.settings import StoreSettings
from extproc.state.sharer import Sharer
from extproc.state.store import Store
from extproc.state.values import bytes_of

__all__ = ["measure"]

# Remembered prefixes are not shared between processes, so the comparison leaves them out.
SETTINGS = EstimatorSettings(byteclass=ByteClassSettings(max_prefixes=0))
TERMS = Terms.of(SETTINGS)
REPLICAS = 4
PROBES = 500
STREAM = 12_000
WARM_UP = 9_000
JOINS_EVERY = 1_000
PEERS, CATEGORIES, MODELS = 16, 500, 8
EVERY_S = StoreSettings("redis://").every_s
WORTH = f"""\
One router saw all of a stream of {STREAM:,} requests (the evaluation's mix, Qwen's tokenizer, log-normal lengths,
without the memory of prefixes, which is not shared); {REPLICAS} replicas saw a random quarter each, and exchanged
through a real redis-server each time they had together learned from the given number of responses. Error: mean
|estimate / truth - 1|; width: mean of bound / truth - 1. Each request after the first {WARM_UP:,} is estimated by
the replica that got it, before it learns from it. In brackets: the ratio to the router that saw all. New: a
replica that has just exchanged for the first time, after {WARM_UP:,} responses and every {JOINS_EVERY:,} more, on
{PROBES} later requests that are not learned from, compared with the router that saw all at that moment; the mean,
and the smallest and largest ratio, over all moments and seeds. Bar: within 5 %."""
COST = f"""\
One exchange of a replica with {CATEGORIES} categories and {MODELS} models, when {PEERS - 1} others of the same
size have all published since the last one: CPU of the replica's process, and the share of a core that this takes
every {EVERY_S:.0f} s, the default. Bites: how long the deciding thread is blocked at a time, by the copy of the
learned state or by a part of a change. Bar: under 1 % of a core."""


def measure(stack: Stack, plan: Plan) -> list[Table]:  # noqa: ARG001  (no router is started)
    """Measure benefit and cost."""
    with _redis() as url:
        return [_worth(url, plan.rounds), _cost(url, plan.rounds)]


class Replica:
    """An estimator with a sharer, whose exchanges are triggered by hand."""

    def __init__(self, url: str, name: str) -> None:
        self.estimator: Estimator = make_estimator(SETTINGS)
        self.bites_ms: list[float] = []
        self.sharer = Sharer(StoreSettings(url, name), TERMS, lambda: self.estimator, self._ask, self)

    async def _ask(self, function: Callable[[], Any]) -> Any:  # noqa: ANN401
        began_s = time.perf_counter()
        result = function()
        self.bites_ms.append(1e3 * (time.perf_counter() - began_s))
        return result

    def state_saved(self, *, done: bool) -> None:
        """Do nothing."""

    def state_exchanged(self, *, done: bool, replicas: int) -> None:  # noqa: ARG002  (the port's)
        """Fail if an exchange failed."""
        if not done:
            raise ConfigurationError("an exchange failed")

    def exchange(self) -> None:
        """Exchange once."""
        self.sharer.first()


def _worth(url: str, rounds: int) -> Table:
    material = Material(all_texts(()), _lengths())
    counter = tokenizer("qwen", Path(tempfile.gettempdir()))
    rows: list[Sequence[str]] = []
    for every in (100, 1_000):
        figures: list[tuple[float, ...]] = []
        joins: list[tuple[float, ...]] = []
        for seed in range(rounds):
            stream = list(mixed(material, counter, STREAM + PROBES, seed))
            compared, joined = _compared(url, f"worth-{every}-{seed}", stream, every, seed)
            figures.append(compared)
            joins += joined
        columns = [np.array(column) for column in zip(*figures, strict=True)]
        one_error, one_width, one_under, error, width, under = (float(c.mean()) for c in columns)
        new_error, new_width, probe_error, probe_width = np.array(joins).T
        rows.append(
            (
                f"{every:,}",
                f"{one_error:.2%}",
                f"{one_width:.1%}",
                f"{one_under:.2%}",
                f"{error:.2%} ({error / one_error:.3f})",
                f"{width:.1%} ({width / one_width:.3f})",
                f"{under:.2%}",
                _joined(new_error, probe_error),
                _joined(new_width, probe_width),
            )
        )
    columns_of = (
        "responses between exchanges",
        "one: error",
        "width",
        "under-counted",
        f"{REPLICAS} replicas: error",
        "width",
    )
    head = (*columns_of, "under-counted", "new: error", "new: width")
    return Table(
        "Sharing: replicas that each see a part, compared with one router that saw all", WORTH, head, rows
    )


def _joined(new: Numbers, reference: Numbers) -> str:
    ratios = new / reference
    return f"{new.mean():.2%} ({new.mean() / reference.mean():.3f}; {ratios.min():.3f}..{ratios.max():.3f})"


def _compared(
    url: str, name: str, stream: Sequence[Request], every: int, seed: int
) -> tuple[tuple[float, ...], list[tuple[float, ...]]]:
    """Return the figures of the router that saw all and of the replicas, and those of each new replica.

    The figures of a new replica come with those of the router that saw all at the same moment.
    """
    one, fleet = make_estimator(SETTINGS), [Replica(url, name) for _ in range(REPLICAS)]
    chance = np.random.default_rng(seed)
    alone, shared = [], []
    joins: list[tuple[float, ...]] = []
    for position, request in enumerate(stream[:STREAM]):
        replica = fleet[chance.integers(REPLICAS)]
        alone.append(_judged(one, request, learn=True))
        shared.append(_judged(replica.estimator, request, learn=True))
        if position % every == every - 1:
            for each in fleet:
                each.exchange()
            if position + 1 >= WARM_UP and (position + 1) % JOINS_EVERY == 0:
                new = Replica(url, name)
                new.exchange()
                joins.append((*_probed(new.estimator, stream[STREAM:]), *_probed(one, stream[STREAM:])))
    a, s = np.array(alone[WARM_UP:]), np.array(shared[WARM_UP:])
    return (*a.mean(axis=0), *s.mean(axis=0)), joins


def _probed(estimator: Estimator, probes: Sequence[Request]) -> tuple[float, float]:
    """Return the mean error and width over requests that are not learned from."""
    error, width, _ = np.array([_judged(estimator, request, learn=False) for request in probes]).mean(axis=0)
    return float(error), float(width)


def _judged(estimator: Estimator, request: Request, *, learn: bool) -> tuple[float, float, float]:
    """Return error, width, and whether the bound was exceeded."""
    estimate = estimator.estimate(request.facts, request.tenant)
    if learn:
        estimator.observe(estimate, Usage(request.tokens, request.output_tokens))
    width = estimate.prompt_bound / request.tokens - 1
    return abs(estimate.prompt_tokens / request.tokens - 1), width, float(width < 0)


def _cost(url: str, rounds: int) -> Table:
    replica = Replica(url, "cost")
    state = _large()
    replica.estimator.load(state)
    others = Store(StoreSettings(url, "cost"), TERMS, state.features)
    cpu_s: list[float] = []
    wall_s: list[float] = []

    async def once(number: int) -> None:
        for peer in range(PEERS - 1):
            changed = tuple(replace(row, observations=row.observations + number) for row in state.categories)
            models = tuple(replace(row, observations=row.observations + number) for row in state.models)
            published = tables_of(replace(state, categories=changed, models=models), TERMS)
            await others.publish(f"peer {peer}", bytes_of(published), new=number == 0)
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        await replica.sharer._exchange(store)  # noqa: SLF001  (`first` would open a new connection)
        cpu_s.append(time.process_time() - began_cpu_s)
        wall_s.append(time.perf_counter() - began_s)

    store = Store(StoreSettings(url, "cost"), TERMS, state.features)

    async def all_rounds() -> None:
        for number in range(rounds + 2):
            await once(number)
        await store.close()
        await others.close()

    _run(all_rounds())
    used_s = median(cpu_s[2:])
    row = (
        f"{PEERS} x {CATEGORIES}",
        f"{1e3 * used_s:.0f} ({1e3 * min(cpu_s[2:]):.0f}..{1e3 * max(cpu_s[2:]):.0f})",
        f"{used_s / EVERY_S:.2%}",
        f"{1e3 * median(wall_s[2:]):.0f}",
        f"{max(replica.bites_ms):.1f}",
        f"{median(replica.bites_ms):.2f}",
    )
    head = ("replicas x categories", "CPU, ms", "of a core", "wall, ms", "longest bite, ms", "median bite, ms")
    return Table("Sharing: cost of an exchange", COST, head, [row])


def _large() -> LearnedState:
    """Return the state of a router with many categories, made from a few real responses."""
    estimator = make_estimator(SETTINGS)
    material = Material(all_texts(()), _lengths())
    for request in mixed(material, tokenizer("qwen", Path(tempfile.gettempdir())), 100, 0):
        _judged(estimator, request, learn=True)
    state = estimator.state()
    model, output = state.models[0], state.outputs[-1]
    keys = [CategoryKey(f"model {i % MODELS}", f"tenant {i}") for i in range(CATEGORIES)]
    return replace(
        state,
        categories=tuple(CategoryState(key, 4.0, 0.0, 60 + i, 0.01, 0.05) for i, key in enumerate(keys)),
        models=tuple(replace(model, model=f"model {i}") for i in range(MODELS)),
        outputs=tuple(replace(output, category=key) for key in keys),
    )


def _lengths() -> list[tuple[int, int]]:
    """Return prompt and output tokens: log-normal, medians 900 and 120, as in chats with documents."""
    rng = np.random.default_rng(20_260_101)
    prompts = np.clip(rng.lognormal(6.8, 1.1, 2_000), 20, 12_000).astype(int).tolist()
    outputs = np.clip(rng.lognormal(4.8, 1.0, 2_000), 1, 4_000).astype(int).tolist()
    return list(zip(prompts, outputs, strict=True))


@contextmanager
def _redis() -> Iterator[str]:
    """Run an empty store on a free port; yield its URL."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise ConfigurationError("redis-server is needed (Debian: redis-server)")
    with tempfile.TemporaryDirectory(prefix="dualpool-bench-") as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                _wait_for(port)
                yield f"redis://127.0.0.1:{port}/0"
            finally:
                server.kill()


def _wait_for(port: int) -> None:
    for _ in range(200):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise ConfigurationError("redis-server did not start to accept connections")


def _run(work: Awaitable[None]) -> None:
    async def here() -> None:
        await work

    asyncio.run(here())
