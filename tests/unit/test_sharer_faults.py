"""Sharing through a store that does not answer, refuses, or does not let the router in."""

import asyncio
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

from extproc.state.changing import NotDone
from extproc.state.in_store import InStore
from extproc.state.store import Store
from tests.unit.redis_server import RedisServer, redis_server
from tests.unit.sharing_replica import SETTINGS, Replica


def test_a_silent_store_is_given_up_in_time(tmp_path: Path) -> None:
    """A port that accepts and never answers costs the timeout, and nothing learned is lost."""
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen()
        replica = Replica(f"redis://127.0.0.1:{hole.getsockname()[1]}/0", timeout_s=0.05)
        replica.learn(10)
        replica.exchange()
    assert [False] == replica.done
    assert 10 == replica.responses


def test_a_store_whose_client_loses_the_cancellation_delays_no_start(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Python 3.11 a client in asyncio.wait_for may not notice that it is cancelled: it is cancelled again."""
    monkeypatch.setattr("extproc.state.sharer.BEGINS_WITHIN_S", 0.01)
    lost: list[int] = []

    async def look(_: Store, excluding: str) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if lost:
                    raise
                lost.append(len(excluding))

    monkeypatch.setattr(Store, "look", look)
    replica = Replica(server.url, timeout_s=60)
    replica.exchange()
    assert ([False], 1) == (replica.done, len(lost))


def test_a_router_does_not_wait_long_for_a_store_at_startup_or_shutdown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The wait is short even if timeout_s is long: workers that do not start
    in time are considered broken and killed.
    """
    monkeypatch.setattr("extproc.state.sharer.BEGINS_WITHIN_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as hole:
        replica = Replica(f"redis://127.0.0.1:{hole.getsockname()[1]}", timeout_s=60)
        replica.exchange()
        asyncio.run(replica.sharer.leave())
    assert [False, False] == replica.done
    assert "TimeoutError: no answer in 0.01 s" == caplog.records[0].__dict__["fields"]["cause"]


@pytest.mark.parametrize(
    "reply", [b":abc\r\n", b"$-5\r\n", b"*1\r\n" * 500, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n", b"\r\n"]
)
def test_a_store_that_answers_nonsense_counts_as_unavailable(reply: bytes) -> None:
    """Invalid numbers, negative lengths, endless lists, other protocols: a router starts without the store."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                while connection.recv(65_536):
                    connection.sendall(reply)

        threading.Thread(target=answer, daemon=True).start()
        replica = Replica(f"redis://127.0.0.1:{listening.getsockname()[1]}", timeout_s=0.05)
        replica.learn(5)
        replica.exchange()
    assert ([False], 5) == (replica.done, replica.responses)


def test_a_full_store_is_reported_and_still_read(server: RedisServer) -> None:
    """If nothing can be written, what others wrote before is still used."""
    one, other = Replica(server.url, 1), Replica(server.url, 2)
    one.learn(30)
    one.exchange()
    assert server.say("CONFIG", "SET", "maxmemory", "1").startswith(b"+OK")
    other.learn(5)
    other.exchange()
    assert [False] == other.done
    assert 35 == other.responses
    server.say("CONFIG", "SET", "maxmemory", "0")
    other.exchange(2)
    one.exchange()
    assert 35 == one.responses


def test_a_full_store_refuses_an_import_in_its_own_words(server: RedisServer) -> None:
    """The sentence that the operator gets has no part of the state that was to be written, which is binary."""
    replica = Replica(server.url)
    replica.learn(30)
    server.say("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(NotDone) as refused:
        InStore(replica.settings, SETTINGS).add(replica.estimator.state())
    said = "the store failed: OutOfMemoryError: command not allowed when used memory > 'maxmemory'."
    assert said == str(refused.value)


def test_a_store_that_refuses_all_writes_is_still_read(server: RedisServer) -> None:
    """What others have published is used even if a lost base or an expired replica's name asks for a write."""
    taught, first, other = (Replica(server.url, seed) for seed in range(3))
    taught.learn(60)
    first.estimator.load(taught.estimator.state())
    first.sharer.begin_with(first.estimator.state())
    first.exchange(2)
    other.learn(30)
    other.exchange()
    (base,) = server.keys("*base")
    server.say("SADD", base.replace("base", "replicas"), "expired")
    server.say("DEL", base)
    server.say("CONFIG", "SET", "min-replicas-to-write", "1")
    new = Replica(server.url, 3)
    for replica in (first, new):
        replica.exchange()
    assert ([True, True, False], [False]) == (first.done, new.done)
    assert [90, 30] == [first.responses, new.responses]
    server.say("CONFIG", "SET", "min-replicas-to-write", "0")
    for replica in (first, new):
        replica.exchange()
    assert [90, 90] == [first.responses, new.responses]
    assert b":0" in server.say("SISMEMBER", base.replace("base", "replicas"), "expired")


def test_a_wrong_password_is_reported_and_a_corrected_one_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is read for each connection, so a password can be changed without a restart."""
    password = tmp_path / "password"
    password.write_text("wrong\n")
    with redis_server(tmp_path, "--requirepass", "right") as server:
        replica = Replica(server.url, password_file=str(password))
        replica.exchange()
        assert "right" not in caplog.text
        password.write_text("right\n")
        replica.exchange()
    assert [False, True] == replica.done


def test_sending_a_password_logs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each interval may make a connection; the client library must not log a warning for each."""
    password = tmp_path / "password"
    password.write_text("right")
    with redis_server(tmp_path, "--requirepass", "right") as server:
        replica = Replica(server.url, username="default", password_file=str(password))
        replica.exchange()
    assert [True] == replica.done
    assert [] == [record.getMessage() for record in caplog.records]


def test_a_binary_password_file_is_reported(server: RedisServer, tmp_path: Path) -> None:
    """A file made by `head -c 32 /dev/urandom` does not keep a router from serving."""
    (tmp_path / "password").write_bytes(b"\xff\xfe")
    replica = Replica(server.url, password_file=str(tmp_path / "password"))
    replica.exchange()
    assert [False] == replica.done


def test_a_missing_password_file_is_reported(server: RedisServer, tmp_path: Path) -> None:
    """It counts as a failure of the store like any other."""
    replica = Replica(server.url, password_file=str(tmp_path / "none"))
    replica.exchange()
    assert [False] == replica.done


def test_the_store_is_reached_over_tls(tmp_path: Path) -> None:
    """A certificate of the configured authority is accepted, one of another authority is not."""
    authority, other = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    files = ["--tls-cert-file", str(tmp_path / "cert.pem"), "--tls-key-file", str(tmp_path / "key.pem")]
    with redis_server(tmp_path, "--tls-port", "PORT", *files, "--tls-auth-clients", "no") as server:
        url = server.url.replace("redis:", "rediss:")
        replicas = [Replica(url, ca_file=str(tmp_path / name)) for name in ("ca.pem", "other.pem")]
        for replica in replicas:
            replica.exchange()
    assert [[True], [False]] == [replica.done for replica in replicas]
