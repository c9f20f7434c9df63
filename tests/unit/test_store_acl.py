"""The commands that the documentation tells a store's administrator to allow are all that the router needs."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extproc.core.estimator.features import FEATURE_NAMES
from extproc.core.estimator.protocol import LearnedState
from extproc.state.settings import StoreSettings
from extproc.state.store import Store
from extproc.state.values import Base
from tests.unit.redis_server import RedisServer, redis_server
from tests.unit.sharing_replica import TERMS, Replica

STATE = Path(__file__).parents[2] / "docs" / "state.md"
PASSWORD = "secret"  # noqa: S105


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[tuple[RedisServer, dict[str, Any]]]:
    """Run a store whose user may use the documented commands and keys; yield it with the user's settings."""
    text = " ".join(STATE.read_text().split())
    found = re.search(r"the commands ([A-Z, ]+) and SELECT", text)
    assert found is not None
    commands = ["SELECT", *re.findall("[A-Z]+", found[1])]
    (tmp_path / "password").write_text(PASSWORD)
    with redis_server(tmp_path) as server:
        allowed = [f"+{command.lower()}" for command in commands]
        reply = server.say("ACL", "SETUSER", "router", "on", f">{PASSWORD}", "~dualpool:*", "-@all", *allowed)
        assert reply.startswith(b"+OK")
        yield server, {"username": "router", "password_file": str(tmp_path / "password")}


@pytest.mark.parametrize("database", [0, 1])
def test_replicas_share_with_the_documented_commands(
    database: int, limited: tuple[RedisServer, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exchanges, also those that fold a dead replica, need no other command."""
    server, user = limited
    url = server.url.removesuffix("0") + str(database)
    dead, *others = (Replica(url, seed, **user) for seed in range(3))
    dead.learn(30)
    dead.exchange()
    monkeypatch.setattr("extproc.state.sharer.DEAD_AFTER", 0)
    for _ in range(3):
        for replica in others:
            replica.exchange()
    assert all(all(replica.done) and replica.done for replica in (dead, *others))
    assert [30, 30] == [replica.responses for replica in others]


def test_lost_races_need_no_other_command(limited: tuple[RedisServer, dict[str, Any]]) -> None:
    """A base that another router has changed, and a replica that is not silent, are left as they are."""
    server, user = limited
    names: list[str] = []
    replica = Replica(server.url, **user)
    replica.learn(10)
    replica.exchange()

    async def scenario() -> None:
        store = Store(StoreSettings(server.url, **user), TERMS, FEATURE_NAMES)
        names.extend((await store.look()).replicas)
        await store.begin_base(Base(LearnedState("")))
        await store.replace_base(b"another head", Base(LearnedState("")))
        assert not await store.fold(names, dead_s=1_000)
        assert not await store.fold(["nobody"], dead_s=-1_000)
        await store.close()

    asyncio.run(scenario())
    assert len(names) == 1
