import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from extproc.core.errors import ConfigurationError
from extproc.emulator.metrics import SchedulerMetrics
from extproc.emulator.scheduler import Scheduler
from extproc.emulator.settings import EmulatorSettings, TokenizerName, choice


class Clock:
    """A clock that advances only when something sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    async def sleep(self, wait_s: float) -> None:
        """Advance the time at once."""
        self.now_s += wait_s


def pool(clock: Clock | None = None, **settings: float | None) -> Scheduler:
    """Return the scheduler of a small pool."""
    clock = clock or Clock()
    made = EmulatorSettings(**{"model": "m", "max_model_len": 100} | settings)  # type: ignore[arg-type]
    return Scheduler(made, lambda: clock.now_s, clock.sleep)


async def hold(scheduler: Scheduler, release: asyncio.Event, prompt_tokens: int = 10) -> None:
    """Run a request until it is released."""
    async with scheduler.admit(1, prompt_tokens):
        await release.wait()


async def settle() -> None:
    """Let all tasks run as far as they can."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_requests_beyond_max_num_seqs_wait_and_move_up() -> None:
    """If all seats are taken, requests wait; a request that leaves admits the first of them."""

    async def scenario() -> list[tuple[int, int]]:
        scheduler, seen = pool(max_num_seqs=2), []
        releases = [asyncio.Event() for _ in range(4)]
        tasks = [asyncio.create_task(hold(scheduler, release)) for release in releases]
        for release in releases:
            await settle()
            seen.append((len(scheduler.running), len(scheduler.waiting)))
            release.set()
        await asyncio.gather(*tasks)
        return [*seen, (len(scheduler.running), len(scheduler.waiting))]

    assert asyncio.run(scenario()) == [(2, 2), (2, 1), (2, 0), (1, 0), (0, 0)]


def test_a_request_waits_for_room_in_the_cache() -> None:
    """A prompt that does not fit in the KV cache waits although seats are free."""

    async def scenario() -> tuple[int, int, float]:
        scheduler, release = pool(kv_cache_tokens=100), asyncio.Event()
        tasks = [asyncio.create_task(hold(scheduler, release, 60)) for _ in range(2)]
        await settle()
        seen = len(scheduler.running), len(scheduler.waiting), scheduler.kv_usage
        release.set()
        await asyncio.gather(*tasks)
        return seen

    assert asyncio.run(scenario()) == (1, 1, 0.6)


def test_a_full_cache_preempts_the_newest_request() -> None:
    """If decoding finds no room, the newest request is preempted, and still finishes later."""

    async def scenario() -> tuple[int, int]:
        scheduler, release = pool(kv_cache_tokens=100), asyncio.Event()
        newest = asyncio.create_task(hold_then_decode(scheduler, release))
        async with scheduler.admit(1, 30) as oldest:
            del oldest
        async with scheduler.admit(1, 40) as other:
            await settle()
            await other.decode(30)
            release.set()
            await settle()
        await newest
        return scheduler.preemptions, len(scheduler.running)

    async def hold_then_decode(scheduler: Scheduler, release: asyncio.Event) -> None:
        await asyncio.sleep(0)
        async with scheduler.admit(1, 50) as running:
            await release.wait()
            await running.decode(5)

    assert asyncio.run(scenario()) == (1, 0)


def test_one_request_fills_the_cache_at_most() -> None:
    """A request runs alone even if its sequences together need more than the cache, whose usage is then 1."""
    pool = Scheduler(EmulatorSettings(model="m", max_model_len=100, kv_cache_tokens=100), lambda: 0.0)

    async def run() -> float:
        async with pool.admit(4, 90) as running:
            await running.decode(10)
            return pool.kv_usage

    assert 1.0 == asyncio.run(run())


def test_a_client_that_leaves_the_queue_frees_its_place() -> None:
    """A waiting request that is cancelled leaves the queue."""

    async def scenario() -> tuple[int, int]:
        scheduler, release = pool(max_num_seqs=1), asyncio.Event()
        first = asyncio.create_task(hold(scheduler, release))
        await settle()
        second = asyncio.create_task(hold(scheduler, release))
        await settle()
        second.cancel()
        await settle()
        seen = len(scheduler.running), len(scheduler.waiting)
        release.set()
        await first
        return seen

    assert asyncio.run(scenario()) == (1, 0)


def test_prefill_and_decode_take_their_time() -> None:
    """A prompt of 50 tokens at 100/s and 40 output tokens at 20/s take 2.5 seconds."""

    async def scenario() -> float:
        clock = Clock()
        scheduler = pool(clock, prefill_tokens_per_s=100.0, decode_tokens_per_s=20.0)
        async with scheduler.admit(1, 50) as running:
            await running.decode(40)
        return clock.now_s

    assert asyncio.run(scenario()) == pytest.approx(2.5)


def test_metrics_have_the_names_and_labels_of_vllm() -> None:
    """The scheduler's state is exported under vLLM's names."""

    async def scenario() -> str:
        scheduler, release = pool(max_num_seqs=1), asyncio.Event()
        tasks = [asyncio.create_task(hold(scheduler, release, 20)) for _ in range(3)]
        await settle()
        text = SchedulerMetrics(scheduler).exposition().decode()
        release.set()
        await asyncio.gather(*tasks)
        return text

    families = text_string_to_metric_families(asyncio.run(scenario()))
    samples = {sample.name: sample for family in families for sample in family.samples}
    assert {name: sample.value for name, sample in samples.items()} == {
        "vllm:num_requests_running": 1.0,
        "vllm:num_requests_waiting": 2.0,
        "vllm:kv_cache_usage_perc": 0.2,
        "vllm:cache_config_info": 1.0,
        "vllm:num_preemptions_total": 0.0,
    }
    assert samples["vllm:num_requests_running"].labels == {"model_name": "m", "engine": "0"}
    cache = {"block_size": "16", "engine": "0", "num_gpu_blocks": "6"}  # of 100 tokens
    assert cache == samples["vllm:cache_config_info"].labels


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("max_model_len", 0, "max_model_len: 0 must be above 0"),
        ("decode_tokens_per_s", -1.0, "decode_tokens_per_s: -1.0 must be above 0"),
        ("kv_cache_tokens", 50, "kv_cache_tokens: 50 must hold one sequence of max_model_len, 100 tokens"),
        ("address", "here", "address: 'here' must be HOST:PORT, with port 0 for any free one"),
        (
            "address",
            "127.0.0.1:99999",
            "address: '127.0.0.1:99999' must be HOST:PORT, with port 0 for any free one",
        ),
    ],
)
def test_impossible_settings_are_named(field: str, value: object, message: str) -> None:
    """Settings that no pool could have are rejected with field, value and what is allowed."""
    with pytest.raises(ConfigurationError) as refused:
        EmulatorSettings(**{"model": "m", "max_model_len": 100, field: value})  # type: ignore[arg-type]
    assert str(refused.value) == message


def test_an_unknown_choice_names_those_allowed() -> None:
    """A word that is not an allowed value is rejected with a list of those that are."""
    with pytest.raises(ConfigurationError) as refused:
        choice(TokenizerName, "tokenizer", "gpt9")
    assert str(refused.value) == "tokenizer: 'gpt9' is not one of auto, qwen, cl100k, deepseek, bytes"
