"""TLS on the gateway's port: who is served, which files are refused, and how renewed ones come into use."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from extproc.config.loading import parse
from extproc.core.errors import ConfigurationError
from extproc.files import read_followed
from extproc.server import tls
from extproc.server.tls import Certificates
from tests.grpc.served import App

Router = Callable[..., Any]


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """Return a certificate authority; write its certificate, and a server's certificate and key, to tmp_path."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = authority.issue_cert("localhost")
    server.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    server.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    return authority


def settings(folder: Path, *, client_ca: bool) -> str:
    """Return a configuration with TLS files from the folder."""
    ca = f", client_ca_file: {folder}/ca.pem" if client_ca else ""
    tls = f"{{certificate_file: {folder}/cert.pem, private_key_file: {folder}/key.pem{ca}}}"
    return f"listen: {{address: 'localhost:0', tls: {tls}}}\nadmin: {{address: '127.0.0.1:0'}}\ndrain_s: 0"


async def decided(call: type[Any], address: str, credentials: grpc.ChannelCredentials) -> bool:
    """Return whether a request over this channel is replied to."""
    async with grpc.aio.secure_channel(address, credentials) as channel:
        stream = call(channel)
        try:
            await stream.headers("/v1/other", mode="FULL_DUPLEX_STREAMED")
            return await stream.read() is not None
        except grpc.aio.AioRpcError:
            return False


@pytest.mark.parametrize("client_ca", [False, True])
def test_tls_and_mtls(call: type[Any], tmp_path: Path, authority: trustme.CA, *, client_ca: bool) -> None:
    """With TLS a client that trusts the authority is served, with mTLS only if it has a certificate from it."""

    async def scenario() -> tuple[bool, bool]:
        app = App(parse(settings(tmp_path, client_ca=client_ca)))
        await app.start()
        root = (tmp_path / "ca.pem").read_bytes()
        client = authority.issue_cert("client")
        shown = grpc.ssl_channel_credentials(
            root, client.private_key_pem.bytes(), client.cert_chain_pems[0].bytes()
        )
        try:
            return (
                await decided(call, app.grpc_address, grpc.ssl_channel_credentials(root)),
                await decided(call, app.grpc_address, shown),
            )
        finally:
            await app.stop()

    assert (not client_ca, True) == asyncio.run(scenario())


def test_a_unix_socket_serves(router: Router, call: type[Any], tmp_path: Path) -> None:
    """The router listens on a Unix socket as well as on a port."""

    async def scenario() -> None:
        address = f"unix:{tmp_path}/s"
        async with router(address=address) as app, grpc.aio.insecure_channel(address) as channel:
            assert address == app.grpc_address
            stream = call(channel)
            await stream.headers("/v1/other", mode="FULL_DUPLEX_STREAMED")
            assert await stream.read() is not None
            stream.stub.cancel()

    asyncio.run(scenario())


def test_a_missing_key_is_an_error(tmp_path: Path, authority: trustme.CA) -> None:
    """A missing TLS file is a configuration error that names the setting."""
    (tmp_path / "key.pem").unlink()

    async def scenario() -> None:
        App(parse(settings(tmp_path, client_ca=False)))

    with pytest.raises(ConfigurationError, match=r"listen\.tls\.private_key_file: .*key\.pem"):
        asyncio.run(scenario())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("key.pem", r"listen\.tls: certificate_file '.*cert\.pem' and private_key_file '.*key\.pem' given; PEM"),
        ("cert.pem", r"listen\.tls: certificate_file '.*cert\.pem' and private_key_file '.*key\.pem' given; PEM"),
        ("ca.pem", r"listen\.tls\.client_ca_file: '.*ca\.pem' given; a PEM file of certificates is needed"),
    ],
)
@pytest.mark.parametrize("content", [b"junk", b"\xff\x00"])
def test_files_that_are_not_pem_are_an_error(
    tmp_path: Path, authority: trustme.CA, name: str, message: str, content: bytes
) -> None:
    """The error names the files, not the address, which could be bound."""
    (tmp_path / name).write_bytes(content)

    async def scenario() -> None:
        App(parse(settings(tmp_path, client_ca=True)))

    with pytest.raises(ConfigurationError, match=message):
        asyncio.run(scenario())


@pytest.mark.parametrize(
    ("name", "field"),
    [("key.pem", "private_key_file"), ("cert.pem", "certificate_file"), ("ca.pem", "client_ca_file")],
)
def test_an_empty_file_is_an_error(tmp_path: Path, authority: trustme.CA, name: str, field: str) -> None:
    """No file may be empty; an empty client_ca_file would lock out every client."""
    (tmp_path / name).write_bytes(b"")

    async def scenario() -> None:
        App(parse(settings(tmp_path, client_ca=True)))

    with pytest.raises(ConfigurationError, match=rf"listen\.tls\.{field}: '.*{name}' given, which is empty"):
        asyncio.run(scenario())


def test_a_key_of_another_certificate_is_an_error(tmp_path: Path, authority: trustme.CA) -> None:
    """Certificate and key must belong together."""
    authority.issue_cert("other").private_key_pem.write_to_path(str(tmp_path / "key.pem"))

    async def scenario() -> None:
        App(parse(settings(tmp_path, client_ca=False)))

    with pytest.raises(ConfigurationError, match=r"listen\.tls: certificate_file .* of its key"):
        asyncio.run(scenario())


def test_an_encrypted_key_is_an_error(tmp_path: Path, authority: trustme.CA) -> None:
    """An encrypted key is an error; the router does not prompt for a password."""
    key = serialization.load_pem_private_key((tmp_path / "key.pem").read_bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (tmp_path / "key.pem").write_bytes(encrypted)

    async def scenario() -> None:
        App(parse(settings(tmp_path, client_ca=False)))

    with pytest.raises(ConfigurationError, match=r"listen\.tls: .* not encrypted, are needed"):
        asyncio.run(scenario())


def test_an_address_in_use_is_an_error_with_tls_too(tmp_path: Path, authority: trustme.CA) -> None:
    """With valid files the error names the address."""

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            text = settings(tmp_path, client_ca=True).replace("localhost:0", f"127.0.0.1:{taken.getsockname()[1]}")
            App(parse(text))

    with pytest.raises(ConfigurationError, match=r"listen\.address: '127\.0\.0\.1:\d+' cannot be bound"):
        asyncio.run(scenario())


def test_files_that_cannot_be_used_are_reported_without_a_handshake(
    tmp_path: Path, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    """Connections of gateways may last for days: a bad renewal is found, and logged once, before the next one.

    What only one look has seen may be half of a file.
    """
    reported: list[bool] = []
    files = parse(settings(tmp_path, client_ca=True)).listen.tls
    assert files is not None
    certificates = Certificates(files, reported.append)
    good = (tmp_path / "key.pem").read_bytes()
    certificates.look()
    assert [False] == reported
    (tmp_path / "key.pem").write_bytes(b"")
    for _ in range(3):
        certificates.look()
    assert [False, False, True, True] == reported
    (tmp_path / "key.pem").write_bytes(good)
    for _ in range(2):
        certificates.look()
    assert [True, False] == reported[-2:]
    (tmp_path / "ca.pem").unlink()
    for _ in range(2):
        certificates.look()
    assert reported[-1]
    assert 2 == caplog.text.count("cannot be used")


def test_an_alert_can_tell_of_files_that_cannot_be_used(
    tmp_path: Path, authority: trustme.CA, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The router's own metric follows the files."""
    monkeypatch.setattr(tls, "LOOKS_EVERY_S", 0.01)

    async def scenario() -> None:
        app = App(parse(settings(tmp_path, client_ca=False)))
        await app.start()

        def shown() -> float | None:
            return app.registry.get_sample_value("dualpool_files_not_in_force", {"setting": "listen.tls"})

        try:
            assert 0 == shown()
            good = (tmp_path / "cert.pem").read_bytes()
            for content, expected in ((b"junk", 1), (good, 0)):
                (tmp_path / "cert.pem").write_bytes(content)
                await eventually(lambda expected=expected: shown() == expected)
        finally:
            await app.stop()

    asyncio.run(scenario())


def test_other_tls_files_are_used_after_a_reload(
    router: Router, call: type[Any], tmp_path: Path, authority: trustme.CA
) -> None:
    """The next handshake uses the files of a reloaded configuration; unreadable ones change nothing."""
    (tmp_path / "other").mkdir()
    other = trustme.CA()
    other.cert_pem.write_to_path(str(tmp_path / "other" / "ca.pem"))
    pair = other.issue_cert("localhost")
    pair.private_key_pem.write_to_path(str(tmp_path / "other" / "key.pem"))
    pair.cert_chain_pems[0].write_to_path(str(tmp_path / "other" / "cert.pem"))

    async def trusted(app: App) -> list[bool]:
        roots = [(folder / "ca.pem").read_bytes() for folder in (tmp_path, tmp_path / "other")]
        return [await decided(call, app.grpc_address, grpc.ssl_channel_credentials(root)) for root in roots]

    async def scenario() -> tuple[list[bool], list[bool]]:
        app = App(parse(settings(tmp_path, client_ca=False)))
        await app.start()
        try:
            with pytest.raises(ConfigurationError, match=r"listen\.tls"):
                await asyncio.to_thread(app.apply, parse(settings(tmp_path / "nothing", client_ca=False)))
            before = await trusted(app)
            await asyncio.to_thread(app.apply, parse(settings(tmp_path / "other", client_ca=False)))
            return before, await trusted(app)
        finally:
            await app.stop()

    assert ([True, False], [False, True]) == asyncio.run(scenario())


def test_a_reload_that_names_files_which_come_later_is_applied_then(
    tmp_path: Path, authority: trustme.CA, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ConfigMap may name the files of a Secret that has not been updated yet."""
    monkeypatch.setattr("extproc.server.reload.LOOKS_EVERY_S", 0.001)
    file = tmp_path / "router.yaml"
    file.write_text(settings(tmp_path, client_ca=False))

    async def scenario() -> None:
        app = App(parse(file.read_text()), file)
        await app.start()
        try:
            file.write_text(settings(tmp_path / "later", client_ca=False))
            await eventually(lambda: app._reloader.report()["refused"] is not None)
            (tmp_path / "later").mkdir()
            for name in ("key.pem", "cert.pem"):
                (tmp_path / name).rename(tmp_path / "later" / name)
            await eventually(lambda: app._reloader.report()["refused"] is None)
            tls_in_force = app._in_force.configuration.listen.tls
            assert tls_in_force is not None
            assert f"{tmp_path}/later/cert.pem" == tls_in_force.certificate_file
        finally:
            await app.stop()

    asyncio.run(scenario())


def test_files_that_could_not_be_read_for_a_while_are_used_afterwards(
    call: type[Any],
    tmp_path: Path,
    authority: trustme.CA,
    eventually: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What keeps a renewed file from being read may pass without a change of the file: descriptors have run out,
    or its permissions are wrong until somebody corrects them.
    """
    monkeypatch.setattr(tls, "LOOKS_EVERY_S", 0.01)
    looks, unreadable = list[str](), True

    def reads(path: str, most_bytes: int) -> bytes:
        looks.append(path)
        if unreadable:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)
        return read_followed(path, most_bytes)

    async def scenario() -> None:
        nonlocal unreadable
        app = App(parse(settings(tmp_path, client_ca=False)))
        await app.start()

        def shown() -> float | None:
            return app.registry.get_sample_value("dualpool_files_not_in_force", {"setting": "listen.tls"})

        try:
            renewed = trustme.CA()
            root = grpc.ssl_channel_credentials(renewed.cert_pem.bytes())
            server = renewed.issue_cert("localhost")
            monkeypatch.setattr("extproc.server.tls.read_followed", reads)
            server.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
            server.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
            await eventually(lambda: shown() == 1)
            assert not await decided(call, app.grpc_address, root)
            looks.clear()
            await eventually(lambda: len(looks) > 2)
            unreadable = False
            await eventually(lambda: shown() == 0)
            assert await decided(call, app.grpc_address, root)
        finally:
            await app.stop()

    asyncio.run(scenario())


def test_the_validity_of_the_certificate_in_use_is_shown(
    tmp_path: Path, authority: trustme.CA, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alert can tell of a certificate that expires: the one in use, not a renewed one that cannot be used."""
    monkeypatch.setattr(tls, "LOOKS_EVERY_S", 0.01)

    def write(expires: datetime) -> None:
        server = authority.issue_cert("localhost", not_after=expires)
        (tmp_path / "key.pem").write_bytes(server.private_key_pem.bytes())
        (tmp_path / "cert.pem").write_bytes(b"".join(each.bytes() for each in server.cert_chain_pems))

    async def scenario() -> None:
        soon, later = (datetime(year, 5, 6, 7, 8, 9, tzinfo=UTC) for year in (2049, 2051))
        write(soon)
        app = App(parse(settings(tmp_path, client_ca=False)))
        await app.start()

        def shown(which: str) -> float | None:
            return app.registry.get_sample_value(f"dualpool_certificate_valid_{which}_timestamp_seconds")

        try:
            assert soon.timestamp() == shown("until")
            write(later)
            await eventually(lambda: shown("until") == later.timestamp())
            (tmp_path / "cert.pem").write_bytes(b"junk")
            await eventually(
                lambda: (
                    1 == app.registry.get_sample_value("dualpool_files_not_in_force", {"setting": "listen.tls"})
                )
            )
            assert later.timestamp() == shown("until")
            begins = shown("from")
            assert begins is not None
            assert begins < soon.timestamp()
        finally:
            await app.stop()

    asyncio.run(scenario())
