"""The addresses of several workers."""

import pytest

from extproc.config.loading import fingerprint, parse
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
    """Ports count upwards, socket names contain the worker's number, and port 0 stays port 0."""
    listen = parse(f"listen: {{address: '{address}'}}").listen
    assert expected == [listen_settings_of(listen, number).address for number in range(2)]


def test_health_has_a_port_for_each_worker() -> None:
    """The health port counts upwards like the gateway's port; nothing else changes."""
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
def test_ports_that_do_not_suffice_for_all_are_refused(settings: str, said: str) -> None:
    """Two listeners on one port, or too few ports, is a configuration error that names the setting."""
    with pytest.raises(ConfigurationError) as caught:
        check_room(parse(settings), 2)
    assert str(caught.value).startswith(said)


def test_all_workers_report_the_same_configuration() -> None:
    """Their addresses and state files differ; `config_hash` tells apart replicas, not workers of one router."""
    whole = parse("listen: {health_address: 'h:9100'}\nstate: {path: /s/state}\ndrain_s: 9")
    assert 1 == len({fingerprint(of_worker(whole, number, 3)) for number in range(3)})
    assert fingerprint(whole) != fingerprint(parse("drain_s: 8"))


@pytest.mark.parametrize("address", ["[::]:9002", "127.0.0.1:0", "unix:/run/s"])
def test_ports_that_suffice(address: str) -> None:
    """The defaults have room, and so do sockets and port 0."""
    check_room(parse(f"listen: {{address: '{address}'}}"), 8)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_workers_share_what_one_router_may_learn_from(workers: int) -> None:
    """The configured message rate is divided among them; the limit on streams applies to
    each, as the gateway's limit per worker does.
    """
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
        "{listen: {address: '0.0.0.0:9002'}, admin: {address: '[::1]:9002'}}",
        "{listen: {address: 'unix:/run/s:9090'}, admin: {address: '127.0.0.1:9090'}}",
        "{listen: {address: '127.0.0.1:0'}, admin: {address: '127.0.0.1:0'}}",
        "{listen: {address: '127.0.0.1:9088'}, admin: {address: '127.0.0.1:9090'}}",
        "{admin: {address: '127.0.0.1:9091', probes_address: '127.0.0.1:9090'}}",
    ],
)
def test_ports_of_different_addresses_do_not_conflict(settings: str) -> None:
    """The same port on another host, a socket's name, or an adjacent port is not a conflict."""
    check_room(parse(settings), 2)
