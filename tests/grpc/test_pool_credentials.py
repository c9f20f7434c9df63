"""Servers that require a key or speak TLS: they get the credentials of their pool, and nobody else does."""

import asyncio
import errno
import io
import logging
import os
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trustme
from aiohttp import web

from extproc.config.loading import as_json, parse
from extproc.core.errors import ConfigurationError
from extproc.core.placing.pool import Endpoints, EndpointTls
from extproc.pools.credentials import KeyUnknown, Trust, key_of
from extproc.pools.scraping import make_client
from extproc.pools.settings import WatchSettings
from extproc.pools.watching import PoolReport, PoolWatch

KEY = "sk-a-key-of-nobody"
MODELS = b'{"data":[{"id":"m"}]}'
METRICS = b"vllm:num_requests_waiting 3\nvllm:num_requests_running 4\n"


@dataclass
class Server:
    """A server that requires a key for its list of models, as vLLM does; it records the keys it was sent."""

    key: str = ""
    shown: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None) -> Any:
        """Serve on a free port; yield the URL."""
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _models(self, request: web.Request) -> web.Response:
        self.shown.append(request.headers.get("authorization", ""))
        allowed = not self.key or self.shown[-1] == f"Bearer {self.key}"
        return web.Response(body=MODELS) if allowed else web.Response(status=401)

    async def _metrics(self, request: web.Request) -> web.Response:
        self.shown.append(request.headers.get("authorization", ""))
        return web.Response(body=METRICS)


def watching(where: Endpoints, publish: Callable[[PoolReport], None] = lambda _: None) -> PoolWatch:
    """Return a watch of these servers, to be run round by round."""
    return PoolWatch(
        "short", where, WatchSettings(every_s=0.05, timeout_s=60), lambda: None, publish, float, Random(0)
    )


async def report_of(where: Endpoints) -> PoolReport:
    """Run one round; return its report."""
    trust = Trust.of(where.tls)
    async with make_client(trust.context) as client:
        return await watching(where).round(client, trust.fault)


def run(scenario: Callable[[AsyncExitStack], Awaitable[None]]) -> None:
    """Run a scenario with an exit stack for its servers."""

    async def here() -> None:
        async with AsyncExitStack() as stack:
            await scenario(stack)

    asyncio.run(here())


@pytest.fixture(params=["file", "variable"])
def keyed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the settings that name the key, as a file or as a variable."""
    if request.param == "file":
        (tmp_path / "key").write_text(f"{KEY}\n")
        return {"api_key_file": str(tmp_path / "key")}
    monkeypatch.setenv("VLLM_KEY", KEY)
    return {"api_key_variable": "VLLM_KEY"}


def test_the_key_is_sent_only_to_the_servers_of_its_pool(
    keyed: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """With the key the models are known; servers of another pool do not get it, and it is not in the log."""
    ours, others = Server(KEY), Server(KEY)

    async def scenario(stack: AsyncExitStack) -> None:
        one, other = [await stack.enter_async_context(each.serving()) for each in (ours, others)]
        assert ["m"] == [model.name for model in (await report_of(Endpoints((one,), **keyed))).models[0]]
        without = await report_of(Endpoints((other,)))
        assert ((), 1) == (without.models, len(without.loads))

    with caplog.at_level(logging.DEBUG):
        run(scenario)
    assert {f"Bearer {KEY}"} == set(ours.shown)
    assert {""} == set(others.shown)
    assert KEY not in caplog.text


def test_a_changed_key_is_read_again(tmp_path: Path) -> None:
    """Keys are renewed while the router runs: each round sends the key that the file holds at the time."""
    file, server = tmp_path / "key", Server(KEY)

    async def scenario(stack: AsyncExitStack) -> None:
        watch = watching(Endpoints((await stack.enter_async_context(server.serving()),), api_key_file=str(file)))
        async with make_client() as client:
            file.write_text("an-old-key")
            assert () == (await watch.round(client)).models
            file.write_text(KEY)
            assert 1 == len((await watch.round(client)).models)

    run(scenario)


@pytest.mark.parametrize("content", [b"", b"two words", b"x\r\ny: z", b"\xff\xfe", b"k" * 5_000, None])
def test_an_invalid_key_is_reported_but_not_shown(
    content: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a valid key servers are still asked for their load; the warning names the file, not its content."""
    file, server = tmp_path / "key", Server(KEY)
    if content is not None:
        file.write_bytes(content)

    async def scenario(stack: AsyncExitStack) -> None:
        url = await stack.enter_async_context(server.serving())
        report = await report_of(Endpoints((url,), api_key_file=str(file)))
        assert 1 == len(report.loads)

    run(scenario)
    if content == b"x\r\ny: z":  # the first line is a valid key
        assert {"Bearer x"} == set(server.shown)
        return
    assert {""} == set(server.shown)
    (line,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert str(file) in str(vars(line)["fields"]["first"])
    assert "two words" not in caplog.text + str(vars(line))


def test_of_a_file_without_a_key_only_the_beginning_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not a key may have no end: no more is read than the longest key and the end of its line."""
    file = io.BytesIO(b"k" * 1_000_000)
    monkeypatch.setattr(Path, "open", lambda *_: nullcontext(file))
    with pytest.raises(KeyUnknown, match="/dev/zero contains no key"):
        key_of(Endpoints(api_key_file="/dev/zero"))
    assert file.tell() <= 4_098


@pytest.mark.parametrize(("length", "end", "valid"), [(4_096, b"\r\n", True), (4_097, b"", False)])
def test_a_key_has_at_most_4096_characters(length: int, end: bytes, valid: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """However its line ends; a longer one is refused, not cut."""
    file = tmp_path / "key"
    file.write_bytes(b"k" * length + end)
    with nullcontext() if valid else pytest.raises(KeyUnknown):
        assert "k" * length == key_of(Endpoints(api_key_file=str(file)))


def test_a_variable_that_is_not_set_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable."""
    monkeypatch.delenv("VLLM_KEY", raising=False)
    with pytest.raises(KeyUnknown, match="environment variable VLLM_KEY contains no key"):
        key_of(Endpoints(api_key_variable="VLLM_KEY"))


def test_no_secret_is_shown_on_the_config_page() -> None:
    """/config shows the path of the API key, but not that of a private TLS key."""
    tls = "tls: {ca_file: /ca, certificate_file: /c, private_key_file: /secret/place}"
    where = f"endpoints: {{urls: ['https://a'], api_key_file: /the/key, {tls}}}"
    shown = as_json(
        parse(f"pools: [{{name: s, max_budget_tokens: 1, {where}}}, {{name: l, max_budget_tokens: 2}}]")
    )
    assert b"/the/key" in shown
    assert b"/secret/place" not in shown


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("api_key_file: /k, api_key_variable: K", "endpoints: api_key_file and api_key_variable given"),
        ("api_key_variable: 'a key'", "endpoints.api_key_variable: 'a key' given"),
        ("tls: {certificate_file: /c}", "endpoints.tls: one of certificate_file and private_key_file given"),
        (
            "dns: 'https://vllm:8443'",
            "endpoints.dns: 'https://vllm:8443' given; https:// requires tls.server_name",
        ),
    ],
)
def test_settings_of_secrets_that_cannot_work_are_refused(settings: str, message: str) -> None:
    """Incomplete or contradictory settings, and ones that could not work, are configuration errors."""
    with pytest.raises(ConfigurationError) as caught:
        parse(f"pools: [{{name: s, max_budget_tokens: 1, endpoints: {{urls: ['http://a'], {settings}}}}}]")
    assert message in str(caught.value)


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """Return a certificate authority whose certificate is in `ca.pem`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return authority


def server_context(authority: trustme.CA, name: str, *, client: bool = False) -> ssl.SSLContext:
    """Return the TLS context of a server with this name; with `client` it requires client certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    if client:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_servers_are_verified_with_the_configured_authority(tmp_path: Path, authority: trustme.CA) -> None:
    """A server whose certificate does not have the configured authority and name counts as not responding."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")

    async def scenario(stack: AsyncExitStack) -> None:
        url = await stack.enter_async_context(Server().serving(server_context(authority, "vllm.example")))
        for ca, name, answered in (
            ("ca.pem", "vllm.example", 1),
            ("ca.pem", "", 0),
            ("ca.pem", "another.example", 0),
            ("other.pem", "vllm.example", 0),
            ("missing.pem", "vllm.example", 0),
        ):
            tls = EndpointTls(ca_file=str(tmp_path / ca), server_name=name)
            assert answered == (await report_of(Endpoints((url,), tls=tls))).answered, (ca, name)
        assert 0 == (await report_of(Endpoints((url,)))).answered

    run(scenario)


def test_a_certificate_is_sent_to_servers_that_require_one(tmp_path: Path, authority: trustme.CA) -> None:
    """With mTLS, a server responds only to a client with a certificate."""
    own = authority.issue_cert("router.example")
    own.private_key_pem.write_to_path(tmp_path / "key.pem")
    own.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    ca, cert, key = (str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem"))

    async def scenario(stack: AsyncExitStack) -> None:
        context = server_context(authority, "127.0.0.1", client=True)
        url = await stack.enter_async_context(Server().serving(context))
        shown = EndpointTls(ca, certificate_file=cert, private_key_file=key)
        assert [1, 0] == [
            (await report_of(Endpoints((url,), tls=tls))).answered for tls in (shown, EndpointTls(ca))
        ]

    run(scenario)


def test_renewed_tls_files_are_read_again(tmp_path: Path, authority: trustme.CA) -> None:
    """With unusable files no server is trusted; after they are fixed, they are used in the next round."""
    ca, fixed = tmp_path / "later.pem", tmp_path / "ca.pem"
    published: asyncio.Queue[PoolReport] = asyncio.Queue()

    async def until(answered: int) -> None:
        while (await published.get()).answered != answered:
            pass

    async def scenario(stack: AsyncExitStack) -> None:
        url = await stack.enter_async_context(Server().serving(server_context(authority, "127.0.0.1")))
        task = asyncio.create_task(
            watching(Endpoints((url,), tls=EndpointTls(str(ca))), published.put_nowait).run()
        )
        try:
            async with asyncio.timeout(30):
                await until(0)
                fixed.replace(ca)
                await until(1)
        finally:
            task.cancel()

    run(scenario)


def test_tls_files_that_could_not_be_read_for_a_while_are_used_afterwards(
    tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What keeps them from being read may pass without a change of the files: descriptors that have run out."""
    published: asyncio.Queue[PoolReport] = asyncio.Queue()
    make, tried = ssl.create_default_context, list[str]()

    def context(cafile: str) -> ssl.SSLContext:
        tried.append(cafile)
        if len(tried) < 3:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return make(cafile=cafile)

    async def scenario(stack: AsyncExitStack) -> None:
        url = await stack.enter_async_context(Server().serving(server_context(authority, "127.0.0.1")))
        monkeypatch.setattr(ssl, "create_default_context", context)
        where = Endpoints((url,), tls=EndpointTls(str(tmp_path / "ca.pem")))
        task = asyncio.create_task(watching(where, published.put_nowait).run())
        try:
            async with asyncio.timeout(30):
                assert [0, 0, 1, 1] == [(await published.get()).answered for _ in range(4)]
        finally:
            task.cancel()

    run(scenario)
    assert 3 == len(tried)


def test_an_encrypted_private_key_is_a_fault_without_a_prompt(tmp_path: Path, authority: trustme.CA) -> None:
    """An encrypted key is reported as a fault; the router does not prompt for a password, even on a terminal."""
    from cryptography.hazmat.primitives import serialization as s  # noqa: PLC0415

    own = authority.issue_cert("router.example")
    own.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    key = s.load_pem_private_key(own.private_key_pem.bytes(), None)
    secret = s.BestAvailableEncryption(b"word")
    (tmp_path / "key.pem").write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, secret))
    files = {"certificate_file": str(tmp_path / "cert.pem"), "private_key_file": str(tmp_path / "key.pem")}
    trust = Trust.of(EndpointTls(**files))
    assert "the TLS files of its servers cannot be used" in trust.fault
    assert trust.context is not None
    assert 0 == len(trust.context.get_ca_certs())
    assert "fault: the TLS files of its servers" in on_a_terminal(
        "from extproc.core.placing.pool import EndpointTls; from extproc.pools.credentials import Trust",
        f"print('fault:', Trust.of(EndpointTls(**{files})).fault)",
    )


def on_a_terminal(*lines: str) -> str:
    """Run Python with a terminal of its own; return what is written there until it ends, or asks for a phrase."""
    ours, its = os.openpty()
    # The first terminal that the leader of a session opens is the one that it is asked on.
    code = "\n".join(("import os", f"os.open({os.ttyname(its)!r}, os.O_RDWR)", *lines))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=its, stdout=its, stderr=its, start_new_session=True
    ) as run:
        os.close(its)
        said = b""
        try:
            while b"phrase" not in said and (more := os.read(ours, 4_096)):
                said += more
        except OSError:  # it has ended, and so has its terminal
            pass
        run.kill()
        os.close(ours)
    return said.decode()
