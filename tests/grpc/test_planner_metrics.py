"""The planner reads lengths, rate and budgets from the /metrics of a running router."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from extproc.cli import main as command_line
from extproc.core.errors import ConfigurationError
from extproc.planning.workload.inputs import live_input
from extproc.planning.workload.lengths import LeftOut
from tests.grpc.served import App
from tests.plain import NO_AUTHORITIES

Router = Callable[..., Any]
# Prompt and completion tokens, and the max_tokens that the client declares.
EXCHANGES = ((700, 90, 128), (650, 80, 128), (5_000, 300, 512), (720, 60, 128))


async def exchange(app: App, call: type[Any], prompt: int, completion: int, declared: int) -> None:
    """Send one request of about four bytes per token, and a response with its usage."""
    message = {"role": "user", "content": "tide " * (prompt * 4 // 5)}
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    async with grpc.aio.insecure_channel(app.grpc_address) as channel:
        stream = call(channel)
        await stream.headers()
        await stream.body(json.dumps({"model": "m", "messages": [message], "max_tokens": declared}).encode())
        await stream.response_headers()
        await stream.response_body(json.dumps({"choices": [{"finish_reason": "stop"}], "usage": usage}).encode())
        while await stream.read() is not None:
            pass
    await app.calls_over()


async def scrape(app: App) -> str:
    """Fetch a router's metrics."""
    async with httpx.AsyncClient(verify=NO_AUTHORITIES) as client:
        return (await client.get(f"http://{app.admin_address}/metrics")).text


async def send_long(app: App, call: type[Any]) -> None:
    """Send a request that is decided by the number of its bytes."""
    async with grpc.aio.insecure_channel(app.grpc_address) as channel:
        stream = call(channel)
        await stream.headers()
        await stream.body(json.dumps({"model": "m", "prompt": "tide " * 100_000}).encode())
        while await stream.read() is not None:
            pass
    await app.calls_over()


def saved(folder: Path, *texts: str) -> list[str]:
    """Write scrapes to files; return their paths."""
    paths = [folder / f"{index}.prom" for index in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return [str(path) for path in paths]


def test_two_scrapes_of_a_router_give_lengths_and_rate(router: Router, call: type[Any], tmp_path: Path) -> None:
    """Responses between the scrapes are counted: their lengths, to within a bucket, and their rate."""

    async def scenario() -> tuple[str, str]:
        async with router("mode: shadow") as app:
            await exchange(app, call, 30_000, 2_000, 4_096)  # before the first scrape: not counted
            first = await scrape(app)
            for prompt, completion, declared in EXCHANGES:
                await exchange(app, call, prompt, completion, declared)
            return first, await scrape(app)

    live = live_input(saved(tmp_path, *asyncio.run(scenario())), 8.0)

    assert live.rate == 0.5
    assert len(live.lengths) == len(EXCHANGES)
    assert sorted(live.lengths.prompt > 1_024) == [False, False, False, True]
    assert 4_096 < live.lengths.prompt.max() <= 8_192
    assert live.lengths.output.max() <= 512
    # The budgets are upper bounds, and the prior prices are far off for one word repeated.
    assert " The lengths are from 4 responses, of 4 requests that were estimated. By" in live.lengths.note
    assert "75.0% under 4,096, 75.0% under 8,192, 100.0% under 16,384" in live.lengths.note


def test_requests_that_a_router_decided_early_are_counted(router: Router, call: type[Any], tmp_path: Path) -> None:
    """They are in no histogram of lengths, so the planner takes their number from the counter of requests."""

    async def scenario() -> str:
        async with router("mode: shadow") as app:
            for each in EXCHANGES[:2]:  # a model has a label once a response has named it
                await exchange(app, call, *each)
            await send_long(app, call)
            return await scrape(app)

    paths = saved(tmp_path, asyncio.run(scenario()))
    for model, requests in ((None, 3), ("m", 2)):
        lengths = live_input(paths, None, model).lengths
        assert (2, LeftOut(early=1, undecided=0, requests=requests)) == (len(lengths), lengths.left_out)


@pytest.mark.parametrize("path", ["/metrics", "", "/", "?a=b", "/?a=b"])
def test_a_router_is_scraped_at_its_address(router: Router, call: type[Any], path: str) -> None:
    """An address works as well as a file; a router without any response yet gets an error that says so."""

    async def scenario() -> None:
        async with router("mode: shadow") as app:
            address = f"http://{app.admin_address}{path}"
            with pytest.raises(ConfigurationError, match="dualpool_actual_prompt_tokens has counted no response"):
                await asyncio.to_thread(live_input, [address], None)
            await exchange(app, call, *EXCHANGES[0])
            live = await asyncio.to_thread(live_input, [address], None)
            assert (1, None) == (len(live.lengths), live.rate)

    asyncio.run(scenario())


def test_two_scrapes_of_two_processes_are_refused(router: Router, call: type[Any], tmp_path: Path) -> None:
    """Counters of a router that restarted, or of another replica behind the same address, have no difference."""

    async def scenario() -> tuple[str, str]:
        async with router("mode: shadow") as app:
            first = await scrape(app)
            await exchange(app, call, *EXCHANGES[0])
            return first, await scrape(app)

    first, second = asyncio.run(scenario())
    later = re.sub(r"(?m)^process_start_time_seconds .*$", "process_start_time_seconds 1", second)

    assert 1 == len(live_input(saved(tmp_path, first, second), 2.0).lengths)
    with pytest.raises(
        ConfigurationError, match="the router restarted in between, or the address is that of several"
    ):
        live_input(saved(tmp_path, first, later), 2.0)


def test_the_first_scrape_may_be_of_a_router_without_responses(
    router: Router, call: type[Any], tmp_path: Path
) -> None:
    """A missing metric counts as zero: the second scrape gives lengths and rate."""

    async def scenario() -> tuple[str, str]:
        async with router("mode: shadow") as app:
            first = await scrape(app)
            await exchange(app, call, *EXCHANGES[0])
            return first, await scrape(app)

    live = live_input(saved(tmp_path, *asyncio.run(scenario())), 2.0)

    assert (1, 0.5) == (len(live.lengths), live.rate)


def test_a_plan_is_made_from_a_routers_metrics(
    router: Router,
    call: type[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`dualpool plan --metrics` turns a scrape into a plan; its alpha comes from the measured budgets."""

    async def scenario() -> str:
        async with router("mode: shadow") as app:
            for prompt, completion, declared in EXCHANGES:
                await exchange(app, call, prompt, completion, declared)
            return await scrape(app)

    (path,) = saved(tmp_path, asyncio.run(scenario()))
    monkeypatch.setattr(command_line, "COMMANDS", ("plan",))
    code = command_line.main(["plan", "--metrics", path, "--rate", "50", "--tp", "8", "--json"])
    plan = json.loads(capsys.readouterr().out)

    assert code == 0
    assert plan["workload"]["requests"] == len(EXCHANGES)
    alphas = {split["threshold"]: split["alpha"] for split in plan["analysis"]["splits"]}
    shares = ", ".join(f"{alphas[edge]:.1%} under {edge:,}" for edge in (2_048, 4_096, 8_192))
    assert f"By the budgets on which the router would route: {shares}" in " ".join(plan["notes"])
    assert plan["recommendation"]


def test_requests_without_a_response_like_theirs_are_counted(
    router: Router, call: type[Any], tmp_path: Path
) -> None:
    """Streams whose usage is never read are in no histogram of lengths, and the plan says how many they are."""

    async def scenario() -> str:
        async with router("mode: shadow\nlearning: {usage_in_streams: asked}") as app:
            await exchange(app, call, *EXCHANGES[0])
            async with grpc.aio.insecure_channel(app.grpc_address) as channel:
                stream = call(channel)
                await stream.headers()
                await stream.body(
                    json.dumps({"model": "m", "messages": [{"content": "tide"}], "stream": True}).encode()
                )
                while await stream.read() is not None:
                    pass
            await app.calls_over()
            return await scrape(app)

    note = live_input(saved(tmp_path, asyncio.run(scenario())), None).lengths.note

    assert "from 1 responses, of 2 requests that were estimated. For 50.0% of these no response like" in note
