"""Look-ups of names while other work goes on: a resolver that hangs holds up nothing else."""

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from extproc.look_ups import run
from extproc.server.background import Background
from tests.unit.sharing_replica import Replica

HANGS = "hangs.invalid"


class Resolver:
    """A resolver that hangs for one name until `answers` is set, and counts the look-ups of that name."""

    def __init__(self) -> None:
        self.look_ups = 0
        self.answers = threading.Event()
        self.was_waited_for = False
        self._real = socket.getaddrinfo
        self._before = set(threading.enumerate())

    def threads(self, name: str) -> list[threading.Thread]:
        """Return the threads with this name that have started since."""
        return [each for each in threading.enumerate() if each.name == name and each not in self._before]

    def getaddrinfo(self, host: object, *others: object, **named: object) -> object:
        """Answer, or hang."""
        if host != HANGS:
            return self._real(host, *others, **named)  # type: ignore[arg-type]
        self.look_ups += 1
        self.was_waited_for |= not self.answers.wait(5)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    """Replace the system's resolver."""
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver.getaddrinfo)
    yield resolver
    resolver.answers.set()


async def addresses(host: str) -> list[object]:
    """Return the addresses of a name."""
    return list(await asyncio.get_running_loop().getaddrinfo(host, 80, type=socket.SOCK_STREAM))


async def given_up() -> str:
    """Look up the name that hangs, and give up after a timeout."""
    try:
        async with asyncio.timeout(0.001):
            await addresses(HANGS)
    except TimeoutError:
        return "given up"
    return "answered"


def test_a_look_up_that_hangs_blocks_no_other_work(resolver: Resolver) -> None:
    """Look-ups that were given up occupy no threads for blocking calls, and the loop ends without them."""

    async def busy() -> str:
        assert {"given up"} == {await given_up() for _ in range(50)}
        return await asyncio.to_thread(lambda: "saved")

    assert "saved" == run(busy())
    assert not resolver.was_waited_for
    assert 1 == resolver.look_ups, "a name that is being looked up is not looked up again"


def test_a_slow_look_up_is_shared_by_all_who_wait_for_it(resolver: Resolver) -> None:
    """A caller that gave up may retry; callers waiting for a name share its answer; later ones look up again."""

    async def scenario() -> None:
        assert "given up" == await given_up()
        waiting = [asyncio.create_task(addresses(HANGS)) for _ in range(2)]
        await asyncio.sleep(0)
        resolver.answers.set()
        for each in waiting:
            with pytest.raises(socket.gaierror, match="no answer"):
                await each
        with pytest.raises(socket.gaierror, match="no answer"):
            await addresses(HANGS)

    run(scenario())
    assert 2 == resolver.look_ups


def test_a_name_is_looked_up_again_after_threads_had_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that gets no thread fails like any other; it does not keep later ones waiting for its answer."""

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def scenario() -> list[object]:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", no_thread)
            with pytest.raises(socket.gaierror, match="new thread"):
                await addresses("localhost")
        async with asyncio.timeout(60):
            return await addresses("localhost")

    assert run(scenario())


def test_names_are_resolved() -> None:
    """The result is the same as from the system's resolver."""
    assert run(addresses("localhost")) == socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)


def test_a_look_up_that_ends_after_its_loop_is_ignored(
    resolver: Resolver, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    """Its result is neither logged nor raised anywhere."""
    run(given_up())
    (thread,) = resolver.threads("dualpool-look-up")
    assert thread.daemon, "the interpreter must not wait for it at exit"
    resolver.answers.set()
    thread.join(10)
    assert not caplog.records
    assert not recwarn.list


def test_a_router_starts_and_ends_while_the_stores_name_hangs(resolver: Resolver) -> None:
    """The first and the last exchange with the store take no longer than their timeout."""
    replica = Replica(f"redis://{HANGS}:6379", timeout_s=0.01)
    replica.exchange()
    run(replica.sharer.leave())
    assert [False, False] == replica.done
    assert not resolver.was_waited_for


def test_jobs_continue_and_end_while_a_name_hangs(resolver: Resolver) -> None:
    """A job with a look-up that hangs does not stop another from saving, and shutdown does not wait for it."""
    saved = threading.Event()

    async def asking() -> None:
        while True:
            await given_up()

    async def saving() -> None:
        for _ in range(20):
            await given_up()
            await asyncio.to_thread(lambda: None)
        saved.set()
        await asyncio.Event().wait()

    background = Background([asking, saving], print)
    background.start()
    assert saved.wait(10)
    background.stop()
    background._thread.join(10)
    assert [] == resolver.threads("dualpool-background")
    assert not resolver.was_waited_for
