import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from extproc.cli.main import main
from tests.unit.test_wrong_addresses import answering

Router = Callable[..., Any]


def test_health_of_a_serving_router(router: Router, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 0 while the router serves; with --ready it is 1 while the router drains."""
    file = tmp_path / "dualpool.yaml"

    async def scenario() -> list[int]:
        async with router() as app:
            file.write_text(f"admin: {{address: '{app.admin_address}'}}")
            command = ["health", "--config", str(file)]
            codes = [await asyncio.to_thread(main, command), await asyncio.to_thread(main, [*command, "--ready"])]
            app.turn_unready()
            codes += [await asyncio.to_thread(main, command), await asyncio.to_thread(main, [*command, "--ready"])]
            return codes

    assert [0, 0, 0, 1] == asyncio.run(scenario())
    assert "" == capsys.readouterr().err


@pytest.mark.parametrize("everywhere", ["[::]", "0.0.0.0"])  # noqa: S104  (nothing is bound to it)
def test_health_of_a_router_that_listens_on_all_addresses(router: Router, everywhere: str, tmp_path: Path) -> None:
    """It is asked at localhost, since nobody can connect to such an address everywhere."""
    file = tmp_path / "dualpool.yaml"

    async def scenario() -> int:
        async with router() as app:
            file.write_text(f"admin: {{address: '{everywhere}:{app.admin_address.rpartition(':')[2]}'}}")
            return await asyncio.to_thread(main, ["health", "--config", str(file)])

    assert 0 == asyncio.run(scenario())


def test_health_without_a_router(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If nothing answers, the exit code is 1 and the message names the address."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, but not listening
        file = tmp_path / "dualpool.yaml"
        held_port = held.getsockname()[1]
        file.write_text(f"admin: {{address: '127.0.0.1:{held_port}'}}")
        assert 1 == main(["health", "--config", str(file)])
    assert f"dualpool health: 127.0.0.1:{held_port}: Connection refused\n" == capsys.readouterr().err


def test_health_at_a_port_of_another_protocol(
    router: Router, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where the configuration names the router's gRPC port by mistake, nothing binary gets to the terminal."""
    file = tmp_path / "dualpool.yaml"

    async def scenario() -> int:
        async with router() as app:
            file.write_text(f"admin: {{address: '{app.grpc_address}'}}")
            return await asyncio.to_thread(main, ["health", "--config", str(file)])

    assert 1 == asyncio.run(scenario())
    assert capfd.readouterr().err.endswith(": no HTTP server\n")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/9\x1b[2J 200 OK\r\n\r\n", "no HTTP server"),
        (b"HTTP/1.1 503 \r\ncontent-length: 8\r\n\r\nno\x1b[2J!\n", "no [2J!"),
    ],
)
def test_nothing_that_a_server_sends_controls_the_terminal(
    answer: bytes, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither in place of HTTP nor as a page: it may be any server's."""
    file = tmp_path / "dualpool.yaml"
    with answering(answer) as address:
        file.write_text(f"admin: {{address: '{address.removeprefix('http://')}'}}")
        assert 1 == main(["health", "--config", str(file)])
    shown = "".join(capfd.readouterr())
    assert shown.endswith(f"{said}\n")
    assert "\x1b" not in shown
