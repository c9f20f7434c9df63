"""Where each of several workers listens."""

import pytest

from extproc.config.loading import parse
from extproc.config.worker_addresses import check_room, listen_settings_of, of_worker
from extproc.core.errors import ConfigurationError


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("[::]:9002", ["[::]:9002", "[::]:9003"]),
        ("127.0.0.1:0", ["127.0.0.1:0", "127.0.0.1:0"]),
        ("unix:/run/router.sock", ["unix:/run/router-0.sock", "unix:/run/router-1.sock"]),
        ("unix:///run/router", ["unix:/run/router-0", "unix:/run/router-1"]),
    ],
)
def test_each_worker_has_an_address_of_its_own(address: str, expected: list[str]) -> None:
    """Ports count upwards, sockets have the worker's number in their name, any free port is any for each."""
    listen = parse(f"listen: {{address: '{address}'}}").listen
    assert expected == [listen_settings_of(listen, number).address for number in range(2)]


def test_health_has_a_port_for_each_worker() -> None:
    """What probes ask is beside what gateways ask; nothing else changes."""
    listen = parse("listen: {address: 'h:9002', health_address: 'h:9100', idle_s: 9}").listen
    assert parse("listen: {address: 'h:9003', health_address: 'h:9101', idle_s: 9}").listen == listen_settings_of(
        listen, 1
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            "listen: {address: 'h:9002', health_address: 'h:9003'}",
            "listen.health_address: port 9003 given, with 2 workers on as many ports each; port 9003 is also",
        ),
        ("{listen: {address: 'h:9089'}, admin: {address: 'h:9090'}}", "admin.address: port 9090 given, with 2"),
        (
            "listen: {address: 'h:65535'}",
            "listen.address: port 65535 given; 2 workers need 2 consecutive ports, up to 65535",
        ),
    ],
)
def test_ports_that_do_not_do_for_all_are_told(settings: str, said: str) -> None:
    """Two on one port, or none for one, is an error of the configuration that names the setting."""
    with pytest.raises(ConfigurationError) as caught:
        check_room(parse(settings), 2)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("address", ["[::]:9002", "127.0.0.1:0", "unix:/run/s"])
def test_ports_that_do(address: str) -> None:
    """The defaults have room, and so have sockets and any free ports."""
    check_room(parse(f"listen: {{address: '{address}'}}"), 8)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_workers_share_what_one_router_may_learn_from(workers: int) -> None:
    """All of them together have the configured messages; each has the places that the gateway has for it."""
    whole = parse("{learning: {messages_per_s: 70, burst_messages: 700, max_streams: 9}, mode: shadow}")
    parts = [of_worker(whole, number, workers).learning for number in range(workers)]
    assert pytest.approx(70) == sum(part.messages_per_s for part in parts)
    assert pytest.approx(700) == sum(part.burst_messages for part in parts)
    assert {9} == {part.max_streams for part in parts}


@pytest.mark.parametrize(
    "settings",
    [
        "{listen: {address: '10.0.0.1:9002'}, admin: {address: '127.0.0.1:9002'}}",
        "{listen: {address: '[::1]:9002'}, admin: {address: '0.0.0.0:9002'}}",
        "{listen: {address: 'unix:/run/s:9090'}, admin: {address: '127.0.0.1:9090'}}",
        "{listen: {address: '127.0.0.1:0'}, admin: {address: '127.0.0.1:0'}}",
        "{listen: {address: '127.0.0.1:9088'}, admin: {address: '127.0.0.1:9090'}}",
    ],
)
def test_ports_of_addresses_that_do_not_meet(settings: str) -> None:
    """The same port of another host, a socket's name, or a port next to it is nobody else's."""
    check_room(parse(settings), 2)
