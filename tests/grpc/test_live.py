"""The live page: its event stream shows what happens; it costs nothing without viewers."""

import asyncio
import contextlib
import io
import json
import sys
import tracemalloc
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prometheus_client import Metric
from rich.console import Console

from extproc.cli.main import main
from extproc.cli.top import screen
from extproc.config.loading import parse
from extproc.server import live
from extproc.server.live import PAGE, VIEWERS, Live, about_router
from extproc.telemetry.looks import Wanted, is_histogram, is_number
from extproc.telemetry.tallies import Counters
from tests.grpc.served import App, learn_once
from tests.plain import NO_AUTHORITIES

Router = Callable[..., Any]
PROBED = """
listen: {address: '127.0.0.1:0'}
admin: {address: '127.0.0.1:0', probes_address: '127.0.0.1:0'}
drain_s: 0
"""
WITHIN_S = 20.0


@asynccontextmanager
async def watching(app: App) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """Watch a router as the live page does; yield its events."""
    async with (
        httpx.AsyncClient(verify=NO_AUTHORITIES) as client,
        client.stream("GET", f"http://{app.admin_address}/live") as response,
    ):
        assert 200 == response.status_code
        assert response.headers["content-type"].startswith("text/event-stream")

        async def events() -> AsyncIterator[dict[str, Any]]:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    yield json.loads(line[6:])

        yield events()


def test_a_viewer_sees_the_decisions_that_are_made(router: Router, call: type[Any]) -> None:
    """Events contain figures since the start and each decision once, but never a request's text."""

    async def scenario() -> None:
        async with router() as app:
            await learn_once(app, call)
            async with watching(app) as events:
                first = await asyncio.wait_for(anext(events), WITHIN_S)
                assert first["since_start"]
                assert 1 == first["figures"]["reasons"]["fits"]
                assert [] == first["recent"]
                assert ["short", "long"] == [pool["name"] for pool in first["about"]["pools"]]
                await learn_once(app, call)
                recent: list[dict[str, Any]] = []
                async with asyncio.timeout(WITHIN_S):
                    while not recent:
                        event = await anext(events)
                        recent += event["recent"]
                assert ["short"] == [each["pool"] for each in recent]
                assert 2 == event["figures"]["reasons"]["fits"]
                assert "How are you" not in json.dumps(event)

    asyncio.run(scenario())


def test_nothing_is_recorded_without_a_viewer(
    router: Router, call: type[Any], eventually: Callable[..., Any]
) -> None:
    """The listener is added with the first viewer and removed with the last."""

    async def scenario() -> None:
        async with router() as app:
            listener = app.router.listener
            before = len(listener._listeners)
            async with watching(app) as events:
                await asyncio.wait_for(anext(events), WITHIN_S)
                await eventually(lambda: len(listener._listeners) == before + 1)
            await eventually(lambda: len(listener._listeners) == before)
            await learn_once(app, call)

    asyncio.run(scenario())


def test_viewers_are_disconnected_if_their_event_cannot_be_made(
    router: Router, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Their page would otherwise wait forever; it says that the connection is lost, and comes again."""

    async def scenario() -> None:
        async with router() as app:
            with monkeypatch.context() as broken:
                broken.setattr(live, "figures_between", None)
                async with watching(app) as events:
                    assert [] == [event async for event in events]
            async with watching(app) as events:
                assert (await asyncio.wait_for(anext(events), WITHIN_S))["since_start"]
        assert ["exception in the live page"] == [each.message for each in caplog.records if each.exc_info]

    asyncio.run(asyncio.wait_for(scenario(), 2 * WITHIN_S))


def test_histograms_are_collected_less_often_than_numbers() -> None:
    """Histograms have thousands of series: a second event within a second reuses the first one's values."""
    collected: list[Wanted] = []

    def metrics(wanted: Wanted) -> list[Metric]:
        collected.append(wanted)
        return []

    viewed = Live(lambda: about_router(parse("")), metrics, None, lambda _: None)
    first, second = viewed._event(), viewed._event()
    assert [is_number, is_histogram, is_number] == collected
    assert first.startswith(b"data: ")
    assert second.startswith(b"data: ")


def test_a_slow_viewer_misses_events_and_gets_the_latest() -> None:
    """None pile up, and the other viewers get all of them."""
    viewed = Live(lambda: about_router(parse("")), lambda _: [], None, lambda _: None)
    slow, fast = asyncio.Queue[bytes](1), asyncio.Queue[bytes](1)
    viewed._viewers |= {slow, fast}
    got = []
    for event in (b"first", b"second"):
        viewed._give(event)
        got.append(fast.get_nowait())
    assert [b"first", b"second"] == got
    assert b"second" == slow.get_nowait()
    assert slow.empty()


def test_watching_for_long_takes_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The window of five minutes takes less than a tenth of its 300 samples, and is as long and as exact."""
    counters = Counters("dualpool_requests", "", ("pool", "reason", "api", "model"))
    clock: deque[float] = deque([0.0], 1)
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    viewed = Live(
        lambda: about_router(parse("")),
        lambda wanted: [counters.collect()] if wanted is is_number else [],
        None,
        lambda _: None,
    )
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for now_s in range(400):
        clock.append(now_s)
        for model in range(200):
            counters["short", "fits", "chat_completions", f"model-{model}"] += 1
        event = json.loads(viewed._event().removeprefix(b"data: "))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 4e6
    assert not event["since_start"]
    assert 200 * 290 <= event["figures"]["reasons"]["fits"] <= 200 * 300
    assert event["per_s"] == pytest.approx(200)


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> list[Live]:
    """Return the live pages of routers that start from now on."""
    made: list[Live] = []

    def make(*args: Any, **options: Any) -> Live:
        made.append(Live(*args, **options))
        return made[-1]

    monkeypatch.setattr("extproc.server.app.Live", make)
    return made


def test_nothing_is_kept_when_nobody_has_watched_for_long(
    router: Router, lives: list[Live], eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The looks of the window are dropped once no viewer has been there for its length."""
    monkeypatch.setattr(live, "WINDOW_S", 0.05)

    async def scenario() -> None:
        async with router() as app:
            (viewed,) = lives
            async with watching(app) as events:
                await asyncio.wait_for(anext(events), WITHIN_S)
                assert viewed._looks
            await eventually(lambda: not viewed._looks and not viewed._labels)

    asyncio.run(scenario())


def test_a_viewer_who_returns_in_time_keeps_what_is_known(
    router: Router, lives: list[Live], eventually: Callable[..., Any]
) -> None:
    """The looks are not dropped while somebody watches again, however long ago the last viewer left."""

    async def scenario() -> None:
        async with router() as app:
            (viewed,) = lives
            async with watching(app) as events:
                await asyncio.wait_for(anext(events), WITHIN_S)
            await eventually(lambda: viewed._forgetting is not None)
            forgetting, looks = viewed._forgetting, list(viewed._looks)
            assert forgetting is not None
            async with watching(app) as events:
                await asyncio.wait_for(anext(events), WITHIN_S)
                assert forgetting.cancelled()
                assert looks == list(viewed._looks)[: len(looks)]

    asyncio.run(scenario())


def test_the_number_of_viewers_is_limited(router: Router) -> None:
    """A viewer beyond the limit gets a 503; the others keep receiving events."""

    async def scenario() -> None:
        async with router() as app, contextlib.AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(watching(app)) for _ in range(VIEWERS)]
            async with httpx.AsyncClient(verify=NO_AUTHORITIES) as client:
                refused = await client.get(f"http://{app.admin_address}/live")
            assert 503 == refused.status_code
            for events in streams:
                await asyncio.wait_for(anext(events), WITHIN_S)

    asyncio.run(scenario())


def test_viewers_that_come_at_the_same_time_are_limited_too(router: Router) -> None:
    """Otherwise they would take all connections, and probes would get none."""

    async def scenario() -> None:
        async with router() as app, httpx.AsyncClient(verify=NO_AUTHORITIES) as client:
            requests = [
                client.build_request("GET", f"http://{app.admin_address}/live") for _ in range(3 * VIEWERS)
            ]
            responses = await asyncio.gather(*(client.send(request, stream=True) for request in requests))
            assert VIEWERS == sum(response.status_code == httpx.codes.OK for response in responses)
            for response in responses:
                await response.aclose()
            async with asyncio.timeout(WITHIN_S):  # places are free again
                while (await client.send(requests[0], stream=True)).status_code != httpx.codes.OK:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

    asyncio.run(scenario())


def test_the_page_is_small_and_loads_nothing_from_elsewhere() -> None:
    """It is under 60 KB, and its policy allows only its own script. The port for probes does not serve it."""

    async def scenario() -> None:
        app = App(parse(PROBED))
        await app.start()
        async with httpx.AsyncClient(verify=NO_AUTHORITIES) as client:
            page = await client.get(f"http://{app.admin_address}/")
            probes = app._admins[1].address
            statuses = [(await client.get(f"http://{probes}/{path}")).status_code for path in ("", "live")]
        await app.stop()
        assert [404, 404] == statuses
        assert PAGE == page.text
        assert len(page.content) < 60_000
        assert "script-src 'sha256-" in page.headers["content-security-policy"]

    asyncio.run(scenario())


def test_top_once_prints_the_figures(router: Router, call: type[Any], capsys: pytest.CaptureFixture[str]) -> None:
    """`dualpool top --once` prints pools, models and problems; of decisions, that it saw none being made."""

    async def scenario() -> None:
        async with router() as app:
            await learn_once(app, call)
            assert 0 == await asyncio.to_thread(main, ["top", app.admin_address, "--once"])

    asyncio.run(scenario())
    printed = capsys.readouterr().out
    assert "short" in printed
    assert "no problems" in printed
    assert "no decision since this view began" in printed
    assert "reason" not in printed


@pytest.mark.parametrize(
    ("model", "printed"),
    [("[/]", "[/]"), ("llama[beta]", "llama[beta]"), ("a\x1b[31mb", "a [31mb")],
)
def test_top_prints_names_as_they_are(model: str, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A model's name comes from clients: it is no markup, and moves no cursor."""
    figures = dict.fromkeys(("routed", "error_p50", "error_p90", "bound_ratio", "under_counted"))
    event = {
        "about": {"version": "1", "mode": "enforce", "pools": []},
        "figures": {"shares": [], "models": [{"name": model, "per_s": 1.0, **figures}], "trouble": []},
        "per_s": 1.0, "by_pool": [], "since_start": True, "recent": [],
    }  # fmt: skip
    Console().print(screen(event, []))
    out = capsys.readouterr().out
    assert printed in out
    assert "\x1b" not in out


def narrow(width: int, names: Sequence[str]) -> list[str]:
    """Return the lines of `dualpool top` for these models in a terminal of this width."""
    figures = {
        "routed": 0.7564,
        "error_p50": 0.0123,
        "error_p90": 0.125,
        "bound_ratio": 1.83,
        "under_counted": 0.009,
    }
    models = [{"name": name, "per_s": 1077.0, **figures} for name in names]
    event = {
        "about": {"version": "1", "mode": "enforce", "pools": []},
        "figures": {"shares": [], "models": models, "trouble": []},
        "per_s": 1.0, "by_pool": [], "since_start": True, "recent": [],
    }  # fmt: skip
    out = io.StringIO()
    Console(file=out, width=width).print(screen(event, []))
    return out.getvalue().splitlines()


def test_top_cuts_names_and_no_numbers() -> None:
    """In a terminal of the usual 80 columns every figure of a model with a long name is shown whole."""
    [line] = [
        line for line in narrow(80, ["meta-llama/Meta-Llama-3.1-70B-Instruct"]) if line.startswith("meta-llama")
    ]
    assert ["1077.0", "75.6%", "1.2%", "12.5%", "1.83", "0.9%"] == line.split()[1:]


@pytest.mark.parametrize("width", [20, 40, 60])
def test_top_in_a_narrow_terminal_says_whose_figures_it_shows(width: int) -> None:
    """Columns that do not fit are left out from the right; names of models stay, and no number is cut."""
    lines = narrow(width, ["m", "gpt-oss-120b"])
    rows = [line.split() for line in lines if line.startswith(("m ", "gpt-oss"))]
    assert 2 == len(rows)
    whole = ["1077.0", "75.6%", "1.2%", "12.5%", "1.83", "0.9%"]
    for row in rows:
        assert row[1:]
        assert whole[: len(row) - 1] == row[1:]


def test_top_prints_one_screen_after_the_other_into_a_pipe(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the output is no terminal each second's figures are printed, until its reader leaves."""
    shown: list[str] = []

    class Pipe(io.StringIO):
        def write(self, text: str) -> int:
            shown.append(text)
            if 2 == "".join(shown).count("no problems"):
                raise BrokenPipeError
            return len(text)

    def left() -> None:
        with pytest.raises(SystemExit) as ended:
            main(["top", address[0]])
        assert 1 == ended.value.code

    address: list[str] = []

    async def scenario() -> None:
        async with router() as app:
            await learn_once(app, call)
            address.append(app.admin_address)
            await asyncio.to_thread(left)

    monkeypatch.setattr("sys.stdout", Pipe())
    monkeypatch.setattr("rich.console.Console.on_broken_pipe", lambda _: sys.exit(1))  # it would close our stdout
    asyncio.run(scenario())
    assert "long" in "".join(shown)


def test_top_shows_problems_first() -> None:
    """A low terminal, which has no room for all models and decisions, shows them all the same."""
    event = {
        "about": {"version": "1", "mode": "enforce", "pools": []},
        "figures": {"shares": [], "models": [], "trouble": [["exceptions", "ValueError", 3]]},
        "per_s": 1.0, "by_pool": [], "since_start": True, "recent": [],
    }  # fmt: skip
    out = io.StringIO()
    Console(file=out, width=80).print(screen(event, []))
    assert "exceptions (ValueError): 3" == out.getvalue().splitlines()[1].strip()


def test_top_says_when_there_is_no_router(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints one line, and the exit code is 2."""
    assert 2 == main(["top", "127.0.0.1:1"])
    assert "is it a router's admin address?" in capsys.readouterr().err
