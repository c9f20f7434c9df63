"""Sharing through a name that another server takes over, as that of a Service or of a managed store does."""

import asyncio
from contextlib import suppress
from pathlib import Path

from tests.unit.redis_server import RedisServer, redis_server
from tests.unit.sharing_replica import Replica


class _Watched(Replica):
    """A replica whose job runs as in a router, over connections that last."""

    def __init__(self, url: str) -> None:
        super().__init__(url, every_s=0.05)
        self.outcomes: asyncio.Queue[bool] = asyncio.Queue()

    def state_exchanged(self, *, done: bool, replicas: int) -> None:
        """Hand the outcome to the test."""
        super().state_exchanged(done=done, replicas=replicas)
        self.outcomes.put_nowait(done)


class _Name:
    """An address whose new connections lead to `server`; the ones that exist stay where they are."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what each side sends until either ends."""
        to_server = await asyncio.open_connection("127.0.0.1", self.server.port)
        await asyncio.gather(self._pass_on(reader, to_server[1]), self._pass_on(to_server[0], writer))

    @staticmethod
    async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
        sink.close()


def test_a_replica_follows_a_name_to_the_new_primary(tmp_path: Path) -> None:
    """A primary that becomes a read-only replica keeps its connections: a failed exchange ends ours."""

    async def scenario(old: RedisServer, new: RedisServer) -> None:
        name = _Name(old)
        serving = await asyncio.start_server(name.connect, "127.0.0.1", 0)
        replica = _Watched(f"redis://127.0.0.1:{serving.sockets[0].getsockname()[1]}/0")
        replica.learn(10)
        job = asyncio.create_task(replica.sharer.job())
        assert await replica.outcomes.get()
        name.server = new
        assert old.say("REPLICAOF", "127.0.0.1", "1").startswith(b"+OK")
        while await replica.outcomes.get():
            pass
        # The first exchange with the new primary finds that the replica's key is not there, the second writes it.
        assert [True, True] == [await replica.outcomes.get() for _ in range(2)]
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
        serving.close()
        assert new.keys("*replica:*")

    folders = tmp_path / "old", tmp_path / "new"
    for folder in folders:
        folder.mkdir()
    with redis_server(folders[0]) as old, redis_server(folders[1]) as new:
        asyncio.run(scenario(old, new))
