"""Integrity of request bodies while the router is stopped, killed, or down."""

import asyncio
import random
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

from bench.disturbance import STATES, DisturbedRouter
from bench.measuring import Plan, Table
from bench.numbered import chat_body, upload_body
from bench.stack import Gateway, Stack
from bench.uploads import Outcome, Upload, upload_all

__all__ = ["DEFAULT_RETRIES", "NO_RETRIES", "measure", "retries_on_the_default_route", "uploads"]

MODES = ("streamed", "buffered", "full-duplex")
SIZES = {"64 KiB": 64 << 10, "256 KiB": 256 << 10, "900 KiB": 900 << 10, "2 MiB": 2 << 20, "10 MiB": 10 << 20}
PATHS = {"/v1/chat/completions": chat_body, "/upload": upload_body}
PARALLEL = 10
# Configurations that nobody should use are measured to show their effect, not its frequency.
ROUNDS_WITH_RETRIES = 2
# Some of the bodies fit the short pool.
ROUTER = "pools: [{name: short, max_budget_tokens: 300000}, {name: long, max_budget_tokens: 4000000}]\n"
# What Istio adds to every route that has no retry policy.
DEFAULT_RETRIES = {
    "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
    "retriable_status_codes": [503],
    "num_retries": 2,
}
# A policy without retries: it disables such retries if a policy can only be overridden by merging another over it.
NO_RETRIES = {"retry_on": "none"}
NOTES = f"""\
Bodies of numbered words of {", ".join(SIZES)}, with content-length and chunked, as a chat
request and on a path that the router ignores, {PARALLEL} at a time. Each is sent in two halves; between them the
router is left alone (up), stopped for 0.8 s, or killed within 50 ms. Down: the router was killed before. A body is
corrupted if the pool that responded received a body other than the one sent. Errors are visible to the client: no
response, or a status other than 200. With retries: a retry policy on the default route, as Istio adds to routes
without one. Streamed mode with retries must not be configured; it is measured to show the fault."""


def measure(stack: Stack, plan: Plan) -> list[Table]:
    """Send the bodies in every mode, with and without retries on the default route, in every state."""
    pools = {name: stack.printing("bench.numbered_pool", name).address for name in ("short", "long")}
    router = DisturbedRouter(stack, ROUTER)
    rows: list[Sequence[str]] = []
    for mode, retries in product(MODES, (False, True)):
        change = retries_on_the_default_route if retries else _nothing
        gateway = stack.gateway(mode, router.server, pools["long"], short_pool=pools["short"], change=change)
        rounds = ROUNDS_WITH_RETRIES if retries else plan.rounds
        for state in STATES:
            outcomes = _send(gateway, router, state, uploads(SIZES.values()) * rounds)
            rows.append((mode, "with" if retries else "without", state, *_counts(outcomes)))
    columns = (
        "mode",
        "retries",
        "router",
        "bodies",
        "corrupted",
        "errors",
        "served short",
        "first corruption",
    )
    return [Table("Integrity of request bodies", NOTES, columns, rows)]


def uploads(sizes: Iterable[int]) -> list[Upload]:
    """Return an upload of each size, path and framing, in a random but fixed order."""
    bodies = {(path, size): make(size) for (path, make), size in product(PATHS.items(), tuple(sizes))}
    found = [Upload(path, body, chunked) for (path, _), body in bodies.items() for chunked in (False, True)]
    random.Random(0).shuffle(found)  # noqa: S311  (an order, not a secret)
    return found


def retries_on_the_default_route(document: dict[str, Any]) -> None:
    """Add Istio's retry policy to every route that has none."""
    manager = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
        route["route"].setdefault("retry_policy", DEFAULT_RETRIES)


def _nothing(_document: dict[str, Any]) -> None:
    """Leave the configuration unchanged, including health checks."""


def _send(gateway: Gateway, router: DisturbedRouter, state: str, bodies: Sequence[Upload]) -> list[Outcome]:
    port = int(gateway.address.rpartition(":")[2])
    outcomes: list[Outcome] = []
    for start in range(0, len(bodies), PARALLEL):
        router.prepare(state)
        group = bodies[start : start + PARALLEL]
        outcomes += asyncio.run(_send_group(port, router, state, group))
    return outcomes


async def _send_group(port: int, router: DisturbedRouter, state: str, group: Sequence[Upload]) -> list[Outcome]:
    outcomes = await upload_all(port, group, lambda: router.disturb(state))
    await router.settled()
    return outcomes


def _counts(outcomes: Sequence[Outcome]) -> list[str]:
    corrupted = [each for each in outcomes if each.intact is False]
    errors = sum(each.status != 200 for each in outcomes)
    short = sum(each.pool == "short" for each in outcomes)
    first = corrupted[0].broken if corrupted else ""
    return [*map(str, (len(outcomes), len(corrupted), errors, short)), first]
