"""The router's listeners: Unix sockets, IPv6, a port for probes, renewed certificates, idle streams."""

import asyncio
import os
import socket
import stat
import struct
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extproc.config.loading import parse
from extproc.config.schema import ListenSettings
from extproc.core.errors import ConfigurationError
from tests.grpc.frames import PREFACE, frame
from tests.grpc.served import App

Router = Callable[..., Any]
SPEAKS_IPV6 = Path("/proc/net/if_inet6").exists()


def configuration(listen: str) -> Any:
    """Return a configuration with these settings of `listen`."""
    return parse(f"listen: {{{listen}}}\nadmin: {{address: '127.0.0.1:0'}}\ndrain_s: 0")


async def health(address: str, credentials: grpc.ChannelCredentials | None = None) -> int:
    """Return the health status of the server as a whole."""
    channel = (
        grpc.aio.insecure_channel(address)
        if credentials is None
        else grpc.aio.secure_channel(address, credentials, [("grpc.ssl_target_name_override", "localhost")])
    )
    async with channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return int((await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)).status)


def write_pair(authority: trustme.CA, folder: Path) -> None:
    """Write a new certificate and its key, as a renewal does."""
    pair = authority.issue_cert("localhost")
    pair.private_key_pem.write_to_path(str(folder / "key.pem"))
    pair.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))


def tls(folder: Path, more: str = "") -> str:
    """Return settings of `listen` with the certificate and key in a folder."""
    files = f"{{certificate_file: {folder}/cert.pem, private_key_file: {folder}/key.pem}}"
    return f"address: '127.0.0.1:0', tls: {files}{more}"


def test_a_second_process_on_a_unix_socket_is_refused(router: Router, tmp_path: Path) -> None:
    """The error says that another process serves the path, and the first router keeps serving."""
    address = f"unix:{tmp_path}/s"

    async def scenario() -> None:
        async with router(address=address):
            with pytest.raises(ConfigurationError, match=r"listen\.address: 'unix:.*another process serves it"):
                App(configuration(f"address: '{address}'"))
            assert 1 == await health(address)

    asyncio.run(scenario())


def test_the_socket_of_a_process_that_accepts_nothing_is_not_taken_over(tmp_path: Path) -> None:
    """It may be stopped, or start slowly: that its queue of connections is full does not make the path free."""
    path = str(tmp_path / "s")
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(path)
        listening.listen(0)
        refused = 0
        while not refused:
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.settimeout(0)
            refused = waiting.connect_ex(path)
        with pytest.raises(ConfigurationError, match="another process serves it"):
            App(configuration(f"address: 'unix:{path}'"))


def test_a_socket_for_datagrams_is_not_taken_over(tmp_path: Path) -> None:
    """Another program's, such as that of a log, is in use although nobody can connect to it as gateways do."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(f"{tmp_path}/s")
        with pytest.raises(ConfigurationError, match="another process serves it"):
            App(configuration(f"address: 'unix:{tmp_path}/s'"))


def test_the_socket_of_a_dead_process_is_taken_over(router: Router, tmp_path: Path) -> None:
    """A stale socket file, which nothing listens on, does not prevent a start."""
    left = socket.socket(socket.AF_UNIX)
    left.bind(f"{tmp_path}/s")
    left.close()

    async def scenario() -> None:
        async with router(address=f"unix:{tmp_path}/s") as app:
            assert 1 == await health(app.grpc_address)

    asyncio.run(scenario())


def test_a_unix_socket_has_the_configured_mode_and_owner(tmp_path: Path) -> None:
    """Mode and owner are as in the settings, whatever the umask."""
    address = f"address: 'unix:{tmp_path}/s'"

    async def scenario() -> os.stat_result:
        app = App(configuration(f"{address}, socket_mode: '0666', socket_owner: '{os.getuid()}:{os.getgid()}'"))
        await app.start()
        found = await asyncio.to_thread((tmp_path / "s").stat)
        await app.stop()
        return found

    found = asyncio.run(scenario())
    assert (0o666, os.getuid(), os.getgid()) == (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)


@pytest.mark.parametrize("owner", ["nobody-of-that-name", "²", ":²", "no\\0body"])
def test_an_unknown_owner_is_a_configuration_error(owner: str, tmp_path: Path) -> None:
    """The message names the setting and its value."""
    with pytest.raises(ConfigurationError, match=r"listen\.socket_owner: .*cannot be applied|null character"):
        App(configuration(f"address: 'unix:{tmp_path}/s', socket_owner: \"{owner}\""))


def test_the_default_address_accepts_ipv4_and_ipv6(router: Router) -> None:
    """[::] serves clients over both; on a machine without IPv6 it still serves IPv4."""
    assert "[::]:9002" == ListenSettings().address

    async def scenario() -> None:
        async with router(address="[::]:0") as app:
            port = app.grpc_address.rpartition(":")[2]
            assert 1 == await health(f"127.0.0.1:{port}")
            if SPEAKS_IPV6:
                assert 1 == await health(f"[::1]:{port}")

    asyncio.run(scenario())


def test_a_port_that_is_in_use_on_ipv4_is_named() -> None:
    """[::] cannot be bound where somebody else has the port on IPv4 alone; the reason is the kernel's."""
    with socket.create_server(("0.0.0.0", 0)) as other:  # noqa: S104  (that is the case)
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match="in use"):
            asyncio.run(App(configuration(f"address: '[::]:{port}'")).start())


def test_two_routers_cannot_share_a_port_for_probes() -> None:
    """Otherwise each would answer a part of the probes, and nobody would notice."""

    async def scenario() -> None:
        app = App(configuration("address: '127.0.0.1:0', health_address: '127.0.0.1:0'"))
        await app.start()
        try:
            both = configuration(f"address: '127.0.0.1:0', health_address: '{app.health_address}'")
            with pytest.raises(ConfigurationError, match=r"listen\.health_address"):
                await App(both).start()
        finally:
            await app.stop()

    asyncio.run(scenario())


def test_probes_have_a_port_without_tls(tmp_path: Path, call: type[Any]) -> None:
    """health_address serves health checks in plaintext, and nothing else."""
    authority = trustme.CA()
    write_pair(authority, tmp_path)

    async def scenario() -> None:
        app = App(configuration(tls(tmp_path, ", health_address: '127.0.0.1:0'")))
        await app.start()
        try:
            assert 1 == await health(app.health_address)
            async with grpc.aio.insecure_channel(app.health_address) as channel:
                stream = call(channel)
                assert grpc.StatusCode.UNIMPLEMENTED == await stream.code()
        finally:
            await app.stop()

    asyncio.run(scenario())


def test_the_port_for_probes_holds_little() -> None:
    """Nobody has to show a certificate there: messages are small, and a connection has few streams."""

    async def scenario() -> None:
        app = App(configuration("address: '127.0.0.1:0', health_address: '127.0.0.1:0'"))
        await app.start()
        try:
            for address, code in (
                (app.grpc_address, grpc.StatusCode.NOT_FOUND),
                (app.health_address, grpc.StatusCode.RESOURCE_EXHAUSTED),
            ):
                async with grpc.aio.insecure_channel(address) as channel:
                    asked = health_pb2.HealthCheckRequest(service="x" * 5_000)
                    with pytest.raises(grpc.aio.AioRpcError) as failed:
                        await health_pb2_grpc.HealthStub(channel).Check(asked, timeout=10)
                    assert code == failed.value.code()
            addresses = (app.grpc_address, app.health_address)
            assert [None, 100] == [await asyncio.to_thread(most_streams, each) for each in addresses]
        finally:
            await app.stop()

    asyncio.run(scenario())


def most_streams(address: str) -> int | None:
    """Return how many streams a connection may have, as the router announces it; None for any number."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as peer, peer.makefile("rb") as received:
        peer.sendall(PREFACE + frame(4, 0, 0))
        length, kind = int.from_bytes(received.read(3), "big"), received.read(6)[0]
        assert kind == 4, "a connection begins with its SETTINGS"
        return dict(struct.iter_unpack(">HI", received.read(length))).get(3)


def test_renewed_certificates_are_used_without_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A client that trusts only the new authority is served after the renewal; invalid files change nothing."""
    caplog.set_level("INFO", "dualpool")
    old, new = trustme.CA(), trustme.CA()
    trust_old, trust_new = (grpc.ssl_channel_credentials(each.cert_pem.bytes()) for each in (old, new))
    write_pair(old, tmp_path)

    async def scenario() -> None:
        app = App(configuration(tls(tmp_path)))
        await app.start()
        try:
            assert 1 == await health(app.grpc_address, trust_old)
            (tmp_path / "key.pem").write_text("half a k")
            assert 1 == await health(app.grpc_address, trust_old)
            write_pair(new, tmp_path)
            assert 1 == await health(app.grpc_address, trust_new)
        finally:
            await app.stop()

    asyncio.run(scenario())
    messages = [record.getMessage() for record in caplog.records if "TLS files" in record.getMessage()]
    assert ["cannot be used" in messages[0], "are in use" in messages[1]] == [True, True]


def test_an_idle_stream_is_closed(call: type[Any]) -> None:
    """A stream without messages ends with OK, whether it waits for a response or never sent headers."""

    async def scenario() -> None:
        app = App(configuration("address: '127.0.0.1:0', idle_s: 1"))
        await app.start()
        try:
            async with grpc.aio.insecure_channel(app.grpc_address) as channel:
                kept, silent = call(channel), call(channel)
                await kept.headers(mode="BUFFERED")
                await kept.read()
                assert [grpc.StatusCode.OK] * 2 == [await stream.code() for stream in (kept, silent)]
                await app.calls_over()
                assert not app._streams.open
        finally:
            await app.stop()

    asyncio.run(scenario())
