"""The simulator in cases that queueing theory solves: M/M/c (Erlang C) and M/G/1 (Pollaczek-Khinchine)
exactly, M/G/c by the usual approximation.
"""

from math import sqrt

import numpy as np
import numpy.typing as npt
import pytest

from extproc.planning.hardware.roofline import IterationCost
from extproc.planning.model.throughput import InstanceLimits
from extproc.planning.simulation.balancing import Balance, Balancing
from extproc.planning.simulation.fleet import simulate
from extproc.planning.simulation.pool import PoolSpec
from extproc.planning.simulation.routers import OnePoolRouter
from extproc.planning.workload.arrivals import Workload
from extproc.planning.workload.texts import draw_texts

ITERATION_S = 0.001  # 1 % of the mean service time, so waiting for an iteration to end hardly counts
REQUESTS = 40_000


def erlang_c(servers: int, offered: float) -> float:
    """Return the probability of waiting in M/M/c with an `offered` load in Erlang (by the Erlang B recursion)."""
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = offered * blocked / (n + offered * blocked)
    return blocked / (1 - offered / servers * (1 - blocked))


def mean_wait_s(service: npt.NDArray[np.int64], servers: int, load: float, seed: int) -> float:
    """Simulate one instance with `servers` slots; return the mean time from arrival to the prefill's start."""
    rng = np.random.default_rng(seed)
    arrival = np.cumsum(rng.exponential(ITERATION_S * service.mean() / (servers * load), len(service)))
    prompt = np.ones(len(service), np.int64)
    workload = Workload(arrival, prompt, service, None, draw_texts(prompt, rng))
    cost = IterationCost((ITERATION_S,) * 65, 0.0, 0.0)
    pool = PoolSpec("one", 1, InstanceLimits(servers, 64, 16 * 10_000, 10_000), cost)
    run = simulate(workload, (pool,), OnePoolRouter())
    return float(run.ttft_s[len(service) // 10 :].mean()) - ITERATION_S


@pytest.mark.parametrize(("servers", "load"), [(1, 0.7), (4, 0.8), (16, 0.8)])
def test_exponential_service_waits_as_erlang_c_says(servers: int, load: float) -> None:
    """An instance with c slots and exponential service is M/M/c: the mean wait is Erlang C's within 8 %."""
    service = np.random.default_rng(7).geometric(1 / 100, REQUESTS)
    mean_service_s = ITERATION_S * service.mean()
    expected = erlang_c(servers, servers * load) * mean_service_s / (servers * (1 - load))

    # On average, a request waits half an iteration for the current one to end.
    assert mean_wait_s(service, servers, load, seed=1) - ITERATION_S / 2 == pytest.approx(expected, rel=0.08)


def general_service(spread: str) -> npt.NDArray[np.int64]:
    """Return service times, in iterations, that are not exponential."""
    rng = np.random.default_rng(11)
    return {
        "deterministic": np.full(REQUESTS, 100),
        "uniform": rng.integers(1, 200, REQUESTS),
        "two kinds": np.where(rng.random(REQUESTS) < 0.1, 600, 50),
    }[spread]


@pytest.mark.parametrize("spread", ["deterministic", "uniform", "two kinds"])
def test_general_service_waits_as_pollaczek_and_khinchine_say(spread: str) -> None:
    """One slot is M/G/1: the mean wait is load x (1 + cv^2) / (2 (1 - load)) service times, within 8 %."""
    service = general_service(spread)
    load, variation = 0.7, float(service.var() / service.mean() ** 2)
    expected = ITERATION_S * service.mean() * load * (1 + variation) / (2 * (1 - load))

    assert mean_wait_s(service, 1, load, seed=3) - ITERATION_S / 2 == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize(("servers", "spread"), [(4, "deterministic"), (4, "two kinds"), (16, "uniform")])
def test_general_service_with_many_slots_waits_as_approximated(servers: int, spread: str) -> None:
    """Several slots are M/G/c: the mean wait is within 12 % of the
    interpolation between M/D/c and M/M/c.

    Cosmetatos' approximation of M/D/c, with cv^2 as the weight of M/M/c (Tijms, A First Course in Stochastic
    Models, 9.6.2); its own error is a few per cent.
    """
    service, load = general_service(spread), 0.8
    variation = float(service.var() / service.mean() ** 2)
    mean_service_s = ITERATION_S * service.mean()
    exponential_s = erlang_c(servers, servers * load) * mean_service_s / (servers * (1 - load))
    more = (1 - load) * (servers - 1) * (sqrt(4 + 5 * servers) - 2) / (16 * load * servers)
    expected = variation * exponential_s + (1 - variation) * exponential_s * (1 + more) / 2

    assert mean_wait_s(service, servers, load, seed=4) - ITERATION_S / 2 == pytest.approx(expected, rel=0.12)


def test_many_instances_behind_a_full_scan_wait_less_than_behind_round_robin() -> None:
    """At the same load, picking the instance with the fewest requests queues less; both serve everything."""
    rng = np.random.default_rng(5)
    service = rng.geometric(1 / 100, 20_000)
    arrival = np.cumsum(rng.exponential(ITERATION_S * 100 / (8 * 0.9), len(service)))
    prompt = np.ones(len(service), np.int64)
    workload = Workload(arrival, prompt, service, None, draw_texts(prompt, rng))
    pool = PoolSpec(
        "pool", 8, InstanceLimits(1, 64, 160_000, 10_000), IterationCost((ITERATION_S,) * 65, 0.0, 0.0)
    )

    waits = {
        rule: float(simulate(workload, (pool,), OnePoolRouter(), Balancing(rule)).ttft_s.mean())
        for rule in Balance
    }

    assert waits[Balance.FULL_SCAN] < 0.7 * waits[Balance.ROUND_ROBIN]
    assert waits[Balance.FULL_SCAN] < waits[Balance.LEAST_REQUEST] < waits[Balance.ROUND_ROBIN]
