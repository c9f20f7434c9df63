"""The addresses of a pool's servers: names, literals and files, and how many of them are polled."""

import asyncio
import socket
from pathlib import Path

import pytest

from extproc.core.placing.pool import Endpoints
from extproc.pools.addresses import MAX_FILE_BYTES, AddressesUnknown, endpoints
from extproc.pools.reports import LoadReport, ModelReport
from extproc.pools.scraping import MAX_AT_ONCE, EndpointReport
from extproc.pools.watching import PoolReport
from tests.grpc.watched import Watched, serving


def test_each_address_of_a_name_is_a_server() -> None:
    """Every address of a headless service is polled, up to a limit of 256."""

    async def resolve(_host: str, _port: int) -> list[str]:
        return [*(f"10.0.{n // 250}.{n % 250}" for n in range(500)), "fd00::1"]

    found = asyncio.run(endpoints(Endpoints(dns="http://vllm-short:8000"), 1, resolve))
    assert (256, "http://10.0.0.0:8000") == (len(found), found[0])


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
def test_a_name_without_a_port_has_that_of_its_scheme(scheme: str, port: int) -> None:
    """As everywhere, and the port is the one that is looked up."""
    asked = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["10.0.0.1"]

    found = asyncio.run(endpoints(Endpoints(dns=f"{scheme}://vllm"), 1, resolve))
    assert ((f"{scheme}://10.0.0.1:{port}",), [("vllm", port)]) == (found, asked)


def test_an_ipv6_address_is_put_in_brackets() -> None:
    """Otherwise the port could not be distinguished from the address."""

    async def resolve(_host: str, _port: int) -> list[str]:
        return ["fd00::1"]

    assert ("http://[fd00::1]:80",) == asyncio.run(endpoints(Endpoints(dns="http://vllm"), 1, resolve))


@pytest.mark.parametrize(
    ("addresses", "polled"),
    [
        (["fd00::1", "fd00::2", "10.0.0.1", "10.0.0.2"], ["http://10.0.0.1:80", "http://10.0.0.2:80"]),
        (["fd00::1", "fd00::1", "10.0.0.1"], ["http://10.0.0.1:80"]),
        (["fd00::1", "10.0.0.1", "10.0.0.2"], ["http://10.0.0.1:80", "http://10.0.0.2:80", "http://[fd00::1]:80"]),
        (["fd00::1", "fd00::2"], ["http://[fd00::1]:80", "http://[fd00::2]:80"]),
    ],
    ids=["both", "duplicate", "mixed", "IPv6"],
)
def test_a_server_with_ipv4_and_ipv6_addresses_is_polled_once(addresses: list[str], polled: list[str]) -> None:
    """Equally many IPv4 and IPv6 addresses belong to the same servers; otherwise each address is a server."""

    async def resolve(_host: str, _port: int) -> list[str]:
        return addresses

    assert tuple(polled) == asyncio.run(endpoints(Endpoints(dns="http://vllm"), 1, resolve))


def test_a_name_that_does_not_resolve_keeps_the_known_servers() -> None:
    """A resolver that is down changes nothing about the known servers."""

    async def scenario(url: str) -> tuple[PoolReport, PoolReport]:
        watched = Watched((url,))
        before = await watched.round()
        watched.watch.where = Endpoints(dns="http://no-such-name.invalid:8000")
        return before, await watched.round()

    before, after = serving(scenario)
    assert before.models == after.models


def test_known_servers_are_polled_even_if_other_sources_fail() -> None:
    """All sources are used: a name that does not resolve, or a missing file, does not hide the URLs."""

    async def scenario(url: str) -> PoolReport:
        watched = Watched(())
        watched.watch.where = Endpoints((url,), dns="http://no-such-name.invalid:8000", file="/no/such/file")
        return await watched.round()

    assert 1 == serving(scenario).answered


def test_only_some_addresses_are_polled_even_if_a_source_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure adds the servers that have reported before, and these come first; no more than 256 are asked."""

    async def known(_where: Endpoints, _timeout_s: float) -> tuple[str, ...]:
        raise AddressesUnknown("no resolver", tuple(f"http://new-{number}" for number in range(256)))

    async def scrape(_client: object, url: str, *_: object) -> EndpointReport:
        return EndpointReport(url, (ModelReport("m"),), LoadReport(0, 1, 0.0))

    monkeypatch.setattr("extproc.pools.watching.endpoints", known)
    monkeypatch.setattr("extproc.pools.watching.scrape", scrape)
    watched = Watched(())
    for number in range(200):
        watched.watch._store(EndpointReport(f"http://old-{number}", (ModelReport("m"),), None), 0.0)
    report = asyncio.run(watched.round())
    assert (256, 256) == (report.asked, report.answered)
    assert 200 == sum(url.startswith("http://old-") for url in watched.watch.known.latest)


def test_servers_in_a_file_are_read_each_time(tmp_path: Path) -> None:
    """The file has one URL per line; comments and empty lines are ignored; a missing file is an error."""
    file = tmp_path / "servers"
    file.write_text("# ours\nhttp://a:1/\n\n http://b:2\n")
    where = Endpoints(file=str(file))
    assert ("http://a:1", "http://b:2") == asyncio.run(endpoints(where, 1))
    file.unlink()
    with pytest.raises(AddressesUnknown, match="servers"):
        asyncio.run(endpoints(where, 1))


def test_a_file_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    """Its last line would be cut, and be the URL of another server."""
    file = tmp_path / "servers"
    file.write_text("http://a:1\n" + "#" * (MAX_FILE_BYTES - 21) + "\nhttp://b:234\n")
    with pytest.raises(AddressesUnknown, match="larger than"):
        asyncio.run(endpoints(Endpoints(file=str(file)), 1))


def test_a_file_that_is_empty_for_a_moment_keeps_the_known_servers(tmp_path: Path) -> None:
    """A program that rewrites the file truncates it first; a pool without servers would count as serving all."""
    file = tmp_path / "servers"

    async def scenario(url: str) -> list[int]:
        watched = Watched(())
        watched.watch.where = Endpoints(file=str(file))
        answered = []
        for text in (url, "", "# nothing\n", url):
            file.write_text(text)
            answered.append(len((await watched.round()).models))
        return answered

    assert [1, 1, 1, 1] == serving(scenario)


@pytest.mark.parametrize("host", ["", "a..b", "x" * 300, "no-such-name.invalid"])
def test_an_invalid_name_is_an_error(host: str) -> None:
    """Whichever way the resolver rejects the name, only AddressesUnknown is raised."""
    with pytest.raises(AddressesUnknown):
        asyncio.run(endpoints(Endpoints(dns=f"http://{host}:1"), 5))


def test_a_resolver_that_hangs_is_given_up() -> None:
    """A lookup takes its timeout and no more."""

    async def resolve(_host: str, _port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(AddressesUnknown, match=r"no result in 0\.01 s"):
        asyncio.run(endpoints(Endpoints(dns="http://vllm"), 0.01, resolve))


def test_a_name_is_resolved_again_in_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server no longer behind the name is forgotten at once; a new one is known after its first round."""
    addresses: list[str] = []

    def resolved(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        assert "vllm.test" == host
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in addresses]

    async def scenario(url: str) -> list[tuple[int, int]]:
        watched = Watched(())
        watched.watch.where = Endpoints(dns=f"http://vllm.test:{url.rpartition(':')[2]}")
        seen = []
        for now in (["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2", "127.0.0.1"]):
            addresses[:] = now
            report = await watched.round()
            seen.append((report.asked, len(report.models)))
        return seen

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    assert [(1, 1), (1, 0), (2, 1)] == serving(scenario)


def test_only_some_of_hundreds_of_addresses_are_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 500 servers 256 are polled, always the same ones, and at most 32 at a time."""
    asked: list[str] = []
    at_once = most = 0

    async def resolve(_host: str, _port: int) -> list[str]:
        return [f"10.{number // 250}.0.{number % 250}" for number in range(500)][:: 1 if len(asked) == 0 else -1]

    async def scrape(_client: object, url: str, *_: object) -> EndpointReport:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        asked.append(url)
        return EndpointReport(url, (ModelReport("m"),), LoadReport(0, 1, 0.0))

    async def known(where: Endpoints, timeout_s: float) -> tuple[str, ...]:
        return await endpoints(where, timeout_s, resolve)

    monkeypatch.setattr("extproc.pools.watching.endpoints", known)
    monkeypatch.setattr("extproc.pools.watching.scrape", scrape)
    watched = Watched(())
    watched.watch.where = Endpoints(dns="http://vllm:8000")
    reports = [asyncio.run(watched.round()) for _ in range(2)]
    assert [(256, 256, 256)] * 2 == [(each.asked, each.answered, len(each.models)) for each in reports]
    assert sorted(asked[:256]) == sorted(asked[256:])
    assert most <= MAX_AT_ONCE
