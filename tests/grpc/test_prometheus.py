"""A real Prometheus scrapes a running router and runs the queries of dashboard, alerts and documents."""

import asyncio
import json
import math
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from ruamel.yaml import YAML

from tests.grpc.served import App
from tests.grpc.test_spill_over import Server, serving
from tests.plain import NO_AUTHORITIES
from tests.unit.redis_server import redis_server

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
WITHIN_S = 30.0
BODIES = (
    b'{"model":"m","messages":[{"role":"user","content":"How are you, all of you?"}],"max_tokens":9}',
    b'{"model":"m","messages":[{"role":"user","content":"A long way"}],"max_tokens":9000}',
    b"no JSON",
)
USAGE = b'{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":3}}'

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="no Prometheus here (Debian's package prometheus)",
)


@asynccontextmanager
async def complete_router(router: Callable[..., Any], folder: Path) -> AsyncIterator[tuple[App, Server]]:
    """Run a router that watches its pools, and saves and shares what it learns; yield it and the short pool."""
    short, long = Server(), Server()
    with redis_server(folder) as store:
        async with serving(short, long) as pools:
            state = f"state: {{path: '{folder}/state', every_s: 0.1, store: {{url: '{store.url}', every_s: 0.1}}}}"
            async with router(f"{pools}{state}") as app:
                yield app, short


async def send(app: App, call: type[Any]) -> None:
    """Send one request of each kind, each with a response."""
    async with grpc.aio.insecure_channel(app.grpc_address) as channel:
        for body in BODIES:
            stream = call(channel)
            await stream.headers()
            await stream.body(body)
            # The router closes a stream at once if it cannot learn from its response.
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await stream.response_headers()
                await stream.response_body(USAGE)
                while await stream.read() is not None:
                    pass
    await app.calls_over()


class Prometheus:
    """A client of a running Prometheus; every wait has a timeout."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def values(self, query: str) -> list[float]:
        """Return the current values of a query; fail if the query is invalid."""
        got = await self._client.get("/api/v1/query", params={"query": query})
        assert 200 == got.status_code, f"{query}: {got.text}"
        return [float(each["value"][1]) for each in got.json()["data"]["result"]]

    async def rules(self) -> list[dict[str, Any]]:
        """Return the rules with their state."""
        groups = (await self._client.get("/api/v1/rules")).json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    async def finds(self, query: str) -> bool:
        """Return whether a query gives a number, waiting out the gap that a late scrape leaves."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WITHIN_S / 10):
                while all(map(math.isnan, await self.values(query))):  # noqa: ASYNC110  (as below)
                    await asyncio.sleep(0.1)
                return True
        return False

    async def until(self, query: str, meanwhile: Callable[[], Awaitable[None]]) -> None:
        """Repeat `meanwhile` until a query gives a result."""
        async with asyncio.timeout(WITHIN_S):
            while not await self.values(query):
                await meanwhile()


@asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[Prometheus]:
    """Run a Prometheus with our rules that scrapes an address five times a second."""
    configuration = {
        "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"},
        "rule_files": [str(MONITORING / "rules.yaml")],
        "scrape_configs": [{"job_name": "dualpool", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(configuration))
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        "--web.listen-address=127.0.0.1:0",
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(WITHIN_S):
            address = None
            while address is None:
                line = (await process.stderr.readline()).decode()
                assert line, "Prometheus has ended"
                address = re.search(r'msg="Listening on" address=(\S+)', line)
        draining = asyncio.ensure_future(process.stderr.read())
        async with httpx.AsyncClient(base_url=f"http://{address[1]}", verify=NO_AUTHORITIES) as client:
            async with asyncio.timeout(WITHIN_S):  # it listens before it has opened its storage
                while (await client.get("/-/ready")).status_code != httpx.codes.OK:  # noqa: ASYNC110  (as above)
                    await asyncio.sleep(0.05)
            yield Prometheus(client)
        process.terminate()
        await draining
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def dashboard_queries() -> dict[str, str]:
    """Return every query of the dashboard, keyed by panel and legend, with its variables set to all routers."""
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    return {
        f"{panel['title']}: {target['legendFormat']}": target["expr"]
        .replace("$job", ".*")
        .replace("$instance", ".*")
        .replace("$__rate_interval", "1m")
        for panel in panels
        for target in panel.get("targets", ())
    }


def questions() -> dict[str, str]:
    """Return the questions in docs/operations.md with their queries."""
    text = (MONITORING.parents[1] / "docs" / "operations.md").read_text("utf-8")
    return dict(re.findall(r"^### (.+)\n```promql\n(.+)\n```", text, re.MULTILINE))


def alerts() -> dict[str, str]:
    """Return each alert's expression by its name."""
    groups = YAML(typ="safe", pure=True).load(MONITORING / "rules.yaml")["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"] if "alert" in rule}


def test_queries_of_dashboard_and_rules_have_data(
    router: Callable[..., Any], call: type[Any], tmp_path: Path
) -> None:
    """After some traffic, queries and recording rules give values, and every metric used in an alert exists."""
    # These have no series before their first exception or refusal.
    not_yet = {"dualpool_exceptions_total", "dualpool_context_overflows_total", "dualpool_truncated_by_pool_total"}
    not_yet |= {"dualpool_workers_serving", "dualpool_workers_replaced_total"}  # nor have these without workers
    not_yet.add("dualpool_drain_ends_timestamp_seconds")  # NaN before a drain
    # NaN without TLS.
    not_yet |= {f"dualpool_certificate_valid_{end}_timestamp_seconds" for end in ("from", "until")}

    async def scenario() -> None:
        async with (
            complete_router(router, tmp_path) as (app, short),
            prometheus(tmp_path, app.admin_address) as server,
        ):
            # Repeatedly, because a rate requires two scrapes of a series.
            share = "dualpool:smaller_pool_share:ratio5m > 0"
            await server.until(f"dualpool:bounds_exceeded:ratio1h and on () {share}", lambda: send(app, call))
            short.waiting = 1000
            spilled = 'rate(dualpool_requests_total{reason="spilled"}[1m]) > 0'
            await server.until(f"{spilled} and on () dualpool_pool_spill_share == 1", lambda: send(app, call))
            wanted = dashboard_queries() | questions()
            for rule in await server.rules():
                assert "ok" == rule["health"], rule
                if "recording" == rule["type"]:
                    wanted[rule["name"]] = rule["name"]
            for name, expression in alerts().items():
                for metric in set(re.findall(r"\bdualpool[_:][\w:]+", expression)) - not_yet:
                    wanted[f"{name}: {metric}"] = metric
            assert [] == [name for name, query in wanted.items() if not await server.finds(query)]

    asyncio.run(scenario())


def test_the_ten_queries_of_the_documents_give_right_answers(
    router: Callable[..., Any], call: type[Any], tmp_path: Path
) -> None:
    """The queries give the right values for a healthy router, and show when a gateway sends no bodies."""

    async def misled(app: App) -> None:
        async with grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers(mode="NONE")
            while await stream.read() is not None:
                pass

    async def scenario() -> None:
        async with (
            complete_router(router, tmp_path) as (app, _),
            prometheus(tmp_path, app.admin_address) as server,
        ):
            await server.until("dualpool:smaller_pool_share:ratio5m > 0", lambda: send(app, call))
            asking = {int(question.partition(".")[0]): query for question, query in questions().items()}
            answers = {number: await server.values(query) for number, query in asking.items()}
            assert 10 == len(answers)
            assert 1.0 == pytest.approx(sum(answers[1]))
            assert 0.5 < answers[2][0] < 2.0
            assert {0.0} == set(answers[3])
            assert [0.0] == answers[4]
            assert [1.0] == answers[5]
            assert 0.0 < answers[7][0] < 1.0
            assert {0.0} == set(answers[8])
            assert 0.5 < answers[9][0] < 2.0
            assert [1.0] == answers[10]
            await server.until(f"sum({asking[3]}) > 0", lambda: misled(app))

    asyncio.run(scenario())


def test_metrics_follow_the_naming_rules_of_prometheus(
    router: Callable[..., Any], call: type[Any], tmp_path: Path
) -> None:
    """`promtool check metrics` has no complaint about the router's own metrics."""

    async def scenario() -> str:
        async with router() as app, httpx.AsyncClient(verify=NO_AUTHORITIES) as client:
            await send(app, call)
            return (await client.get(f"http://{app.admin_address}/metrics")).text

    text = asyncio.run(scenario())
    ran = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert [] == [line for line in (ran.stdout + ran.stderr).splitlines() if line.startswith("dualpool")]
    assert 0 == ran.returncode or "dualpool" not in ran.stderr, ran.stderr
