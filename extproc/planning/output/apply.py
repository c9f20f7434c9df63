"""The recommended design as files: server arguments, the router's configuration, Envoy's limits, Helm values.

    vllm-POOL.args   arguments of `vllm serve` for each pool, one per line; or
    sglang-POOL.args arguments of `python -m sglang.launch_server`
    dualpool.yaml    pools, thresholds, the estimator planned with; not written for one pool, which needs no router
    envoy.yaml       load balancing and circuit breakers of each pool, to merge into Envoy's clusters
    values.yaml      the same as values of the router's chart, deploy/helm/dualpool; not written for one pool
    servers.yaml     replicas, GPU and arguments of each pool, for whatever deploys the servers (not the chart)

All of them are generated from the fleet that the recommendation names, so they agree with it.
"""

import json
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.settings import EstimatorSettings
from extproc.planning.design.answer import Plan
from extproc.planning.design.recommend import recommended
from extproc.planning.model.costs import Costs
from extproc.planning.model.engine import Engine
from extproc.planning.model.setup import Setup
from extproc.planning.simulation.balancing import Balance, Balancing
from extproc.planning.simulation.options import RunOptions
from extproc.planning.simulation.runner import FleetEstimate
from extproc.planning.simulation.task import RouterKind

__all__ = ["apply_files", "write_files"]

NAMES = {1: ("all",), 2: ("short", "long"), 3: ("short", "medium", "long")}
# lb_policy cannot express it: Envoy would compare two instances, which requires a larger fleet.
FULL_SCAN = """\
    load_balancing_policy:  # instead of lb_policy
      policies:
        - typed_extension_config:
            name: envoy.load_balancing_policies.least_request
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest
              selection_method: FULL_SCAN""".splitlines()
WAITING = 1  # requests that may wait at an instance, per request that may run
# As in the files of envoy/: refusing is up to the engine. With few places it serves many that wait, and in time.
FEWEST_IN_FLIGHT = 8_192


@dataclass(frozen=True, slots=True)
class _Pool:
    name: str
    limit: int
    model_len: int
    instances: int
    gpu: str
    may_run: int
    flags: tuple[str, ...]


def write_files(plan: Plan, setup: Setup, costs: Costs, runs: RunOptions, directory: Path) -> list[Path]:
    """Write the files into a directory, creating it if necessary, and return their paths.

    Files of an earlier plan that this plan does not have are removed. Raises ConfigurationError if nothing is
    recommended or the files cannot be written.
    """
    files = apply_files(plan, setup, costs, runs)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in _names() - files.keys():  # from an earlier plan, they would contradict this one
            (directory / name).unlink(missing_ok=True)
        for name, text in files.items():
            (directory / name).write_text(text, "utf-8")
    except OSError as error:
        raise ConfigurationError(f"--apply {directory}: {error.strerror}") from error
    return [directory / name for name in files]


def apply_files(plan: Plan, setup: Setup, costs: Costs, runs: RunOptions) -> dict[str, str]:
    """Return the text of each file by its name; designs without a balancing rule have that of the runs.

    Raises ConfigurationError if nothing is recommended.
    """
    fleet = recommended(plan.fleets, costs)
    if fleet is None:
        raise ConfigurationError("--apply: nothing is recommended: no fleet is known to be in steady state")
    pools = _pools(fleet, setup, costs)
    in_time = plan.rate * max(each.ttft_s for each in setup.objective.classes)
    engine = setup.engine.kernels
    files = {f"{engine}-{pool.name}.args": "\n".join(pool.flags) + "\n" for pool in pools}
    if len(pools) > 1:
        rows = [
            f"- {{name: {pool.name}, max_budget_tokens: {pool.limit}, max_model_len: {pool.model_len}}}\n"
            for pool in pools
        ]
        lines = [*_estimator(runs.router), "pools:\n", *(f"  {row}" for row in rows)]
        files["dualpool.yaml"] = f"# {plan.recommendation}\n{''.join(lines)}"
        files["values.yaml"] = f"config:\n{''.join(f'  {line}' for line in lines)}"
    files["envoy.yaml"] = _envoy(pools, fleet.design.balancing or runs.balancing, ceil(in_time))
    files["servers.yaml"] = _servers(pools, engine)
    return files


def _estimator(router: RouterKind) -> list[str]:
    """Return the router's setting of the estimator that was planned with, unless it is the default; the oracle's
    knowledge cannot be configured, which a comment says.
    """
    if router == "oracle":
        return ["# Planned with --router oracle, which knows all lengths. This router estimates them.\n"]
    return [] if router == EstimatorSettings().kind else [f"estimator: {{kind: {router}}}\n"]


def _names() -> set[str]:
    pools = {name for names in NAMES.values() for name in names}
    return {"dualpool.yaml", "values.yaml", *(f"{each.kernels}-{name}.args" for each in Engine for name in pools)}


def _pools(fleet: FleetEstimate, setup: Setup, costs: Costs) -> list[_Pool]:
    design = fleet.design
    lens = design.model_lens or design.contexts
    pools = []
    rows = zip(NAMES[len(lens)], design.contexts, costs.of(fleet).instances, lens, strict=True)
    for index, (name, limit, instances, model_len) in enumerate(rows):
        own, short = design.setup(index, setup), index < len(lens) - 1
        seqs = own.limits(model_len, short=short).max_num_seqs
        may_run = instances * own.instance.data_parallel * seqs
        flags = own.flags(model_len, short=short)
        pools.append(_Pool(name, limit, model_len, instances, own.gpu_name, may_run, flags))
    return pools


def _in_flight(pools: list[_Pool], in_time: int) -> list[int]:
    """Return the requests that Envoy lets into each pool, above which it replies with 503.

    `in_time` is how many may wait within the objective. The largest pool also takes what no router decides, and
    all requests while the router is down.
    """
    limits = [max(FEWEST_IN_FLIGHT, pool.may_run * (1 + WAITING), pool.may_run + 2 * in_time) for pool in pools]
    return [*limits[:-1], sum(limits)]


def _envoy(pools: list[_Pool], balancing: Balancing, in_time: int) -> str:
    policy = "ROUND_ROBIN" if balancing.rule is Balance.ROUND_ROBIN else "LEAST_REQUEST"
    lines = [
        f"# Planned with {balancing}. Limits: max_num_seqs running requests per instance and as many waiting,",
        f"# at least {FEWEST_IN_FLIGHT:,}: refusing is up to the engine. Routers down: all in the largest pool.",
    ]
    if balancing.needs:
        lines.append(f"# Envoy alone cannot balance by prompt tokens: use {balancing.needs}.")
    lines.append("clusters:")
    for pool, in_flight in zip(pools, _in_flight(pools, in_time), strict=True):
        lines.append(f"  - name: pool_{pool.name}")
        lines += FULL_SCAN if balancing.rule is Balance.FULL_SCAN else [f"    lb_policy: {policy}"]
        if balancing.rule is Balance.LEAST_REQUEST:
            lines.append(f"    least_request_lb_config: {{choice_count: {balancing.choices}}}")
        limits = ", ".join(
            f"{key}: {in_flight}" for key in ("max_connections", "max_pending_requests", "max_requests")
        )
        lines += ["    circuit_breakers:", f"      thresholds: [{{{limits}}}]"]
    return "\n".join(lines) + "\n"


def _servers(pools: list[_Pool], engine: str) -> str:
    """Return each pool's servers. Their arguments are words, as the `args` of a container are, and in quotes, as
    those have to be texts.
    """
    lines = ["pools:"]
    for pool in pools:
        words = [word for flag in pool.flags for word in flag.split()]
        lines += [
            f"  - name: {pool.name}",
            f"    maxBudgetTokens: {pool.limit}",
            f"    replicas: {pool.instances}",
            f"    gpu: {json.dumps(pool.gpu, ensure_ascii=False)}",  # a catalogue's name may be anything
        ]
        lines += [f"    {engine}:", "      args:", *(f'        - "{word}"' for word in words)]
    return "\n".join(lines) + "\n"
