"""`admin.token_file`: who may see the admin pages, and how the commands present the token."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from extproc.cli.main import main
from extproc.config.loading import parse
from extproc.core.errors import ConfigurationError
from extproc.gateways.live import router_configuration
from tests.grpc.served import App
from tests.plain import NO_AUTHORITIES

TOKEN = "a-token-that-nobody-guesses"  # noqa: S105  (used only in these tests)
OPEN = ("/metrics", "/healthz", "/readyz")
STREAMED = str(Path(__file__).parents[2] / "envoy" / "streamed.yaml")
CLOSED = ("/", "/live", "/config", "/state", "/nothing")


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """Return a file that contains the token."""
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\nOnly the first line counts.\n")
    return path


@asynccontextmanager
async def router_with_token(token_file: Path) -> AsyncIterator[App]:
    """Run a router that requires the token."""
    admin = {"address": "127.0.0.1:0", "token_file": str(token_file)}
    app = App(parse(json.dumps({"listen": {"address": "127.0.0.1:0"}, "admin": admin, "drain_s": 0})))
    await app.start()
    try:
        yield app
    finally:
        await app.stop()


async def statuses(app: App, *paths: str, **asking: Any) -> set[int]:
    """Request pages, reading only the response heads; return the statuses."""
    found = set()
    async with httpx.AsyncClient(base_url=f"http://{app.admin_address}", verify=NO_AUTHORITIES) as client:
        for path in paths:
            async with client.stream("GET", path, **asking) as response:
                found.add(response.status_code)
    return found


def test_only_probes_are_open(token_file: Path) -> None:
    """Without the token only the pages for probes and scrapes are served; even unknown paths get 401."""

    async def scenario() -> None:
        async with router_with_token(token_file) as app:
            assert {200} == await statuses(app, *OPEN)
            assert {401} == await statuses(app, *CLOSED)
            for wrong in (
                "Bearer",
                f"Bearer {TOKEN}x",
                f"Digest {TOKEN}",
                TOKEN,
                "Basic !",
                "Bearer \xff",
            ):
                header = {"authorization": wrong.encode("latin-1")}
                assert {401} == await statuses(app, "/config", headers=header), wrong
            assert {401} == await statuses(app, "/config", auth=("dualpool", "guess"))

    asyncio.run(scenario())


def test_the_token_opens_every_page_to_programs_and_browsers(token_file: Path) -> None:
    """It is accepted as a bearer token, and as the password of any user name, which is what a browser sends."""

    async def scenario() -> None:
        async with router_with_token(token_file) as app:
            for asking in ({"headers": {"authorization": f"Bearer {TOKEN}"}}, {"auth": ("me", TOKEN)}):
                assert {200} == await statuses(app, "/", "/live", "/config", "/state", **asking)
            async with httpx.AsyncClient(verify=NO_AUTHORITIES) as client:
                refused = await client.get(f"http://{app.admin_address}/")
            offered = {each.split()[0] for each in refused.headers.get_list("www-authenticate")}
            assert {"Bearer", "Basic"} == offered

    asyncio.run(scenario())


def test_a_changed_token_takes_effect_at_once(token_file: Path) -> None:
    """The file is read for each request; while it holds no token, all are refused, and probes still work."""

    async def scenario() -> None:
        async with router_with_token(token_file) as app:
            token_file.write_text("another")  # noqa: ASYNC240  (a few bytes)
            assert {401} == await statuses(app, "/config", headers={"authorization": f"Bearer {TOKEN}"})
            assert {200} == await statuses(app, "/config", headers={"authorization": "Bearer another"})
            token_file.write_text("")  # noqa: ASYNC240  (a few bytes)
            assert {503} == await statuses(app, "/config")
            assert {200} == await statuses(app, *OPEN)

    asyncio.run(scenario())


@pytest.mark.parametrize("text", [None, "", "two words", "s\u00e4cret"])
def test_a_router_whose_token_file_holds_no_token_does_not_start(tmp_path: Path, text: str | None) -> None:
    """A token file that is missing, or holds no valid token, is a configuration error."""
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text, "utf-8")

    async def scenario() -> None:
        with pytest.raises(ConfigurationError, match=r"admin\.token_file"):
            async with router_with_token(path):
                pass

    asyncio.run(scenario())


def test_commands_send_the_token(token_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`top`, `state`, `estimate --admin` and `check envoy` work with --token-file, and ask for it if missing."""
    body, exported, former = tmp_path / "body.json", tmp_path / "state", tmp_path / "former"
    former.write_text("former\n")
    body.write_text('{"model": "m", "messages": [{"role": "user", "content": "Hello"}]}')

    def commands(url: str) -> list[list[str]]:
        return [
            ["top", url, "--once"],
            ["state", "show", url],
            ["state", "export", url, str(exported)],
            ["state", "merge", url, "--out", str(exported)],
            ["estimate", str(body), "--admin", url],
            ["check", "envoy", STREAMED, "--router", url],
        ]

    async def scenario() -> None:
        async with router_with_token(token_file) as app:
            url = f"http://{app.admin_address}"
            for command in commands(url):
                assert 0 != await asyncio.to_thread(main, command), command
                asked = capsys.readouterr().err
                assert "--token-file" in asked
                assert "admin address" not in asked
                assert 0 != await asyncio.to_thread(main, [*command, "--token-file", str(former)]), command
                assert "the router has another token than the file of --token-file\n" in capsys.readouterr().err
                with_token = [*command, "--token-file", str(token_file)]
                await asyncio.to_thread(main, with_token)
                assert "--token-file" not in capsys.readouterr().err, command
            assert "127.0.0.1:0" == (await asyncio.to_thread(router_configuration, url, TOKEN)).admin.address

    asyncio.run(scenario())


@pytest.mark.parametrize("first_line", [b"\n", b"two words\n", b"sec\rret\n", "ge\u00a0heim".encode(), b"\xff\n"])
def test_a_file_without_a_token_is_an_error_of_a_command(
    first_line: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No request is sent without the token that was to be in it. What is there instead is not
    shown: it may be most of a token.
    """
    (tmp_path / "token").write_bytes(first_line)
    assert 2 == main(["state", "show", "http://127.0.0.1:9", "--token-file", str(tmp_path / "token")])
    said = "its first line is not a token (printable ASCII without spaces)"
    assert f"dualpool state: --token-file {tmp_path / 'token'}: {said}\n" == capsys.readouterr().err


def test_a_missing_token_file_of_a_command_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the option."""
    assert 0 != main(["state", "show", "http://127.0.0.1:9", "--token-file", str(tmp_path / "none")])
    assert "--token-file" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["state", "check"])
def test_a_token_is_not_sent_where_a_page_redirects(command: str, token_file: Path) -> None:
    """It is for the address that the user gave, and for no other."""
    seen = []

    async def redirect(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("authorization"))
        if request.path == "/elsewhere":
            return web.Response(text="nothing of a router")
        raise web.HTTPFound("/elsewhere")

    async def scenario() -> int:
        app = web.Application()
        app.router.add_get("/{page:.*}", redirect)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            arguments = {
                "state": ["state", "show", url],
                "check": ["check", "envoy", STREAMED, "--router", url],
            }[command]
            return await asyncio.to_thread(main, [*arguments, "--token-file", str(token_file)])
        finally:
            await runner.cleanup()

    assert 2 == asyncio.run(scenario())
    assert [f"Bearer {TOKEN}", None] == seen


def test_a_page_is_read_up_to_a_limit(
    token_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An address that sends without end does not fill the memory of a command."""
    monkeypatch.setattr("extproc.cli.token.MAX_PAGE_BYTES", 10)

    async def scenario() -> int:
        async with router_with_token(token_file) as app:
            page = f"http://{app.admin_address}"
            return await asyncio.to_thread(main, ["state", "show", page, "--token-file", str(token_file)])

    assert 2 == asyncio.run(scenario())
    assert "larger than the 10 bytes" in capsys.readouterr().err
