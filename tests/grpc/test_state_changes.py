"""Changing the learned state of a running router at its admin port: who may do so, and how errors are handled."""

import asyncio
import base64
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from extproc.cli.main import main
from extproc.config.loading import parse
from extproc.core.estimator import make_estimator
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.protocol import LearnedState
from extproc.core.estimator.settings import EstimatorSettings
from extproc.state.frame import framed
from extproc.state.snapshot import to_bytes
from tests.grpc.served import App, learn_once
from tests.grpc.test_state_survives import eventually, known
from tests.plain import NO_AUTHORITIES
from tests.unit.byteclass_lessons import teach
from tests.unit.redis_server import redis_server

TOKEN = "a-token-that-nobody-guesses"  # noqa: S105  (used only in these tests)
SHOWN = {"authorization": f"Bearer {TOKEN}"}
CHANGES = ("/state/import", "/state/reset", "/state/undo?model=m")


def taught(responses: int, model: str = "m") -> LearnedState:
    """Return the state of a router that has learned from this many responses of one model."""
    estimator = make_estimator(EstimatorSettings())
    assert isinstance(estimator, ByteClassEstimator)
    teach(estimator, responses)
    state = estimator.state()
    return replace(
        state,
        models=tuple(replace(row, model=model) for row in state.models),
        categories=(),
        outputs=(),
    )


@asynccontextmanager
async def router(folder: Path, settings: str = "", *, asks: bool = True) -> AsyncIterator[App]:
    """Run a router, which requires the token if `asks`."""
    (folder / "token").write_text(TOKEN)
    token = f", token_file: '{folder}/token'" if asks else ""
    listen = "listen: {address: '127.0.0.1:0'}\ndrain_s: 0"
    app = App(parse(f"{listen}\nadmin: {{address: '127.0.0.1:0'{token}}}\n{settings}"))
    await app.start()
    try:
        yield app
    finally:
        await app.stop()


async def post(app: App, path: str, data: bytes | AsyncIterator[bytes] = b"", **asking: Any) -> httpx.Response:
    """Request a change, with the token unless `asking` has other headers."""
    async with httpx.AsyncClient(base_url=f"http://{app.admin_address}", verify=NO_AUTHORITIES) as client:
        return await client.post(path, content=data, **{"headers": SHOWN, **asking})


def counted(app: App, change: str, outcome: str) -> float | None:
    """Return how many changes of a kind had this outcome."""
    labels = {"change": change, "outcome": outcome}
    return app.registry.get_sample_value("dualpool_state_changes_total", labels)


def test_a_running_router_takes_a_state_and_forgets_a_model(
    call: type[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """An imported state is added to the router's own; one model, or all, can be forgotten."""
    caplog.set_level(logging.INFO, "dualpool")
    file, exported = tmp_path / "state", tmp_path / "exported"
    file.write_bytes(framed(to_bytes(replace(taught(7), models=(*taught(7).models, *taught(5, "other").models)))))

    async def scenario() -> None:
        async with router(tmp_path) as app:
            url = f"http://{app.admin_address}"
            shown = ["--token-file", str(tmp_path / "token")]

            async def command(*words: str) -> str:
                assert 0 == await asyncio.to_thread(main, ["state", *words, *shown])
                return capsys.readouterr().out

            await learn_once(app, call)
            await eventually(lambda: known(app) == 1)
            assert "models added: 2" in await command("import", str(file), url)
            assert 1 + 7 + 5 == known(app)
            assert "forgot model 'other'\n" == await command("reset", url, "--model", "other")
            assert "nothing was learned about model 'x y&z'\n" == await command("reset", url, "--model", "x y&z")
            assert 1 + 7 == known(app)
            await learn_once(app, call)
            await eventually(lambda: known(app) == 1 + 7 + 1)
            assert "forgot everything\n" == await command("reset", url)
            assert 0 == known(app)
            await command("import", str(file), url)
            await command("export", url, str(exported))
            assert 7 + 5 == known(app)
            assert (2, 3) == (counted(app, "import", "done"), counted(app, "reset", "done"))

    asyncio.run(scenario())
    assert 5 == caplog.text.count("a change to learned state was requested at the admin port")


def test_a_page_of_what_was_learned_shows_a_change_at_once(
    call: type[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is kept for a while, but not beyond a change."""
    monkeypatch.setattr("extproc.server.admin.KEEPS_FOR", 1e9)

    async def scenario() -> list[bool]:
        async with (
            router(tmp_path) as app,
            httpx.AsyncClient(base_url=f"http://{app.admin_address}", verify=NO_AUTHORITIES) as client,
        ):

            async def shown() -> bool:
                return bool((await client.get("/state", headers=SHOWN)).json()["models"])

            await learn_once(app, call)
            await eventually(lambda: known(app) == 1)
            before = await shown()
            await post(app, "/state/reset")
            return [before, await shown()]

    assert [True, False] == asyncio.run(scenario())


def test_a_body_that_declares_too_much_is_refused_before_it_comes(tmp_path: Path) -> None:
    """The router does not read 64 MB to learn that there are more."""

    async def scenario() -> bytes:
        async with router(tmp_path) as app:
            host, _, port = app.admin_address.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            head = f"POST /state/import HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n"
            writer.write(f"{head}content-length: {(64 << 20) + 1}\r\n\r\n".encode())
            try:
                async with asyncio.timeout(10):
                    return await reader.readline()
            finally:
                writer.close()

    assert b" 413 " in asyncio.run(scenario())


def test_nothing_can_be_changed_without_the_token(call: type[Any], tmp_path: Path) -> None:
    """Without a configured token changes are forbidden; with one, a browser's password or a foreign host fails."""
    password = base64.b64encode(f"me:{TOKEN}".encode()).decode()
    wrong = [{}, {"authorization": "Bearer another"}, {"authorization": f"Basic {password}"}]

    async def scenario() -> None:
        async with router(tmp_path) as app:
            await learn_once(app, call)
            await eventually(lambda: known(app) == 1)
            for path in CHANGES:
                for headers in wrong:
                    refused = await post(app, path, headers=headers)
                    assert 401 == refused.status_code
                    assert ['Bearer realm="dualpool"'] == refused.headers.get_list("www-authenticate")
                assert 421 == (await post(app, path, headers={**SHOWN, "host": "evil.example"})).status_code
            assert 1 == known(app)
        async with router(tmp_path, asks=False) as app:
            await learn_once(app, call)
            await eventually(lambda: known(app) == 1)
            for path in CHANGES:
                refused = await post(app, path)
                assert (403, True) == (refused.status_code, "admin.token_file" in refused.text)
                async with httpx.AsyncClient(
                    base_url=f"http://{app.admin_address}", verify=NO_AUTHORITIES
                ) as client:
                    assert 405 == (await client.get(path)).status_code
            assert 1 == known(app)
            assert 0 == counted(app, "reset", "done")

    asyncio.run(scenario())


def test_invalid_changes_are_refused_with_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged, foreign or endless state, and a misspelt query, change nothing; each is counted."""
    monkeypatch.setattr("extproc.server.changes.MAX_STATE_BYTES", 1 << 20)
    whole = framed(to_bytes(taught(7)))
    of_ema = make_estimator(EstimatorSettings(kind="ema")).state()
    other = replace(taught(7), features=("a", "b"))
    wrong = {
        b"": "empty",
        b"what is this": "not a dualpool state",
        whole[:-1]: "damaged",
        framed(b"\xff\xff"): "not valid protobuf",
        framed(b""): "contains no learned state",
        framed(to_bytes(of_ema)): "kind 'ema'",
        framed(to_bytes(other)): "features",
    }

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield bytes(1 << 16)

    async def scenario() -> None:
        async with router(tmp_path) as app:
            for data, says in wrong.items():
                refused = await post(app, "/state/import", data)
                assert 400 == refused.status_code
                assert says in refused.text
                assert 1 == refused.text.count("\n")
            assert 413 == (await post(app, "/state/import", bytes(2 << 20))).status_code
            assert 413 == (await post(app, "/state/import", endless())).status_code
            for query in ("modle=m", "model=", "model=m&all=1", "model=m&model=n", "all"):
                assert 400 == (await post(app, f"/state/reset?{query}")).status_code
            assert (9, 5) == (counted(app, "import", "refused"), counted(app, "reset", "refused"))
            assert 200 == (await post(app, "/state/import", whole)).status_code
            assert 7 == known(app)

    asyncio.run(scenario())


def test_replaced_prices_come_back_on_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command restores a model's prices that new ones have replaced; if there are none, it says so."""
    undone = []

    def undo(_: ByteClassEstimator, model: str) -> bool:
        undone.append(model)
        return model == "m"

    monkeypatch.setattr(ByteClassEstimator, "undo", undo)

    async def scenario() -> None:
        async with router(tmp_path) as app:
            url = f"http://{app.admin_address}"
            asking = ["state", "undo", url, "--token-file", str(tmp_path / "token"), "--model"]
            assert 0 == await asyncio.to_thread(main, [*asking, "m"])
            assert "restored the previous prices of model 'm'\n" == capsys.readouterr().out
            assert 0 == await asyncio.to_thread(main, [*asking, "another"])
            assert "model 'another' has no previous prices to restore\n" == capsys.readouterr().out
            for query in ("", "?model=", "?modle=m", "?model=m&all=1"):
                assert 400 == (await post(app, f"/state/undo{query}")).status_code
            assert (2, 4) == (counted(app, "undo", "done"), counted(app, "undo", "refused"))

    asyncio.run(scenario())
    assert ["m", "another"] == undone
    assert 2 == main(["state", "undo", "a-file", "--model", "m"])
    assert "only running routers remember" in capsys.readouterr().err


def test_a_model_of_another_generation_is_not_added_but_named(tmp_path: Path) -> None:
    """Sums of two tokenizers are not added: the response names the model that was left out."""
    state = taught(7)
    later = replace(state, models=tuple(replace(row, generation=1) for row in state.models))

    async def scenario() -> None:
        async with router(tmp_path) as app:
            assert "not" not in (await post(app, "/state/import", framed(to_bytes(state)))).text
            response = (await post(app, "/state/import", framed(to_bytes(later)))).text
            assert "left out 'm': a different generation" in response
            assert 7 == known(app)
            await post(app, "/state/reset?model=m")
            await post(app, "/state/import", framed(to_bytes(later)))
            assert [1] == [row.generation for row in app.ask(app.router.placer.estimator.state).models]

    asyncio.run(scenario())


def test_changes_are_made_one_at_a_time_and_do_not_wait_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the body of a change is awaited, another may be refused; the first one is given up after a timeout."""
    monkeypatch.setattr("extproc.server.changes.BODY_WITHIN_S", 0.2)
    begun = asyncio.Event()

    async def stopping() -> AsyncIterator[bytes]:
        yield b"dualpool"
        begun.set()
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with router(tmp_path) as app:
            first = asyncio.create_task(post(app, "/state/import", stopping()))
            await begun.wait()
            statuses = {(await post(app, "/state/reset")).status_code}
            await eventually(lambda: counted(app, "import", "failed") == 1)
            assert statuses <= {200, 409}
            first.cancel()
            assert 200 == (await post(app, "/state/reset")).status_code

    asyncio.run(scenario())


def test_a_hanging_loop_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has changed in this case, and the response says that the router is too busy."""

    def busy(*_: object) -> None:
        raise TimeoutError

    async def scenario() -> None:
        async with router(tmp_path) as app:
            monkeypatch.setattr(app.loop, "ask", busy)
            for change, body in (
                ("import", framed(to_bytes(taught(7)))),
                ("reset", b""),
                ("undo?model=m", b""),
            ):
                refused = await post(app, f"/state/{change}", body)
                assert (503, "the router is too busy to apply the change\n") == (refused.status_code, refused.text)
            monkeypatch.undo()
            assert 0 == known(app)

    asyncio.run(scenario())


def test_a_change_reaches_all_routers_that_share_a_store(call: type[Any], tmp_path: Path) -> None:
    """The change is made in the store; otherwise other routers would undo it. A store that is down is an error."""
    with redis_server(tmp_path) as server:
        settings = f"state: {{store: {{url: '{server.url}', every_s: 0.1, timeout_s: 10}}}}"

        async def scenario() -> None:
            async with router(tmp_path, settings) as one, router(tmp_path, settings) as two:
                await learn_once(one, call)
                await eventually(lambda: known(one) == known(two) == 1)
                assert 400 == (await post(two, "/state/import", b"what is this")).status_code
                response = await post(two, "/state/import", framed(to_bytes(taught(7))))
                assert (200, True) == (response.status_code, "next exchange" in response.text)
                await eventually(lambda: known(one) == known(two) == 8)
                assert 200 == (await post(one, "/state/reset?model=m")).status_code
                await eventually(lambda: known(one) == known(two) == 0)
                server.kill()
                refused = await post(one, "/state/reset")
                assert (503, True) == (refused.status_code, "the store failed" in refused.text)

        asyncio.run(scenario())
