"""The simulated instance compared with vLLM's own scheduler classes: same arrivals, same cost of a step.

Run it in a separate environment (dualpool does not depend on vLLM, and no GPU or model is needed):

    pip install vllm . && python -m bench.planner_vllm [FIRST WORD OF A CASE...]

`Scheduler` decides every step of 1,000 requests at the sizes of a real server. The duration of a step is computed
from what it scheduled, by the same function as ours, and each request's first and last token must come at the same
times. `AsyncScheduler`, vLLM's default since 0.14, plans a step while the previous one runs: the last three
columns show how far its times are from the simulated ones.
"""

import json
import sys
import tempfile
from collections import deque
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
import vllm
from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from extproc.planning.hardware.instance import BLOCK_TOKENS
from extproc.planning.hardware.roofline import IterationCost
from extproc.planning.model.throughput import InstanceLimits
from extproc.planning.simulation.instance import VllmInstance
from extproc.planning.simulation.sequence import Sequence

REQUESTS = 1_000
CONTEXT = 8_192
NULL_BLOCKS = 1
SAME_S = 1e-6  # floating-point sums in a different order
# The model is never loaded: only its configuration is read.
MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "vocab_size": 128,
    "max_position_embeddings": 131_072,
}


@dataclass(frozen=True)
class Case:
    """A server and its load: a request every `every_s` seconds on average."""

    name: str
    limits: InstanceLimits
    every_s: float
    mean_output: int = 150
    longest_prompt: int = 3_000


SMALL, LARGE = 16_000, 64_000  # tokens of KV cache
CASES = (
    Case("busy", InstanceLimits(64, 512, LARGE, CONTEXT), 0.25),
    Case("cache too small", InstanceLimits(64, 512, SMALL, CONTEXT), 0.25),
    Case(
        "cache too small, without the admission gate",
        InstanceLimits(64, 512, SMALL, CONTEXT, reserve_full_prompt=False),
        0.25,
    ),
    Case(
        "cache too small, --long-prefill-token-threshold 256",
        InstanceLimits(64, 512, SMALL, CONTEXT, long_prefill_token_threshold=256),
        0.25,
    ),
    Case("few sequences", InstanceLimits(8, 2_048, LARGE, CONTEXT), 0.3, mean_output=60),
    Case("batch as small as its sequences", InstanceLimits(64, 64, LARGE, CONTEXT), 0.12, longest_prompt=400),
    Case(
        "mostly idle, --long-prefill-token-threshold 256",
        InstanceLimits(64, 512, LARGE, CONTEXT, long_prefill_token_threshold=256),
        1.5,
        mean_output=20,
        longest_prompt=8_000,
    ),
)


@dataclass
class Times:
    """When each request got its first and last token, and how many preemptions there were."""

    first: dict[int, float] = field(default_factory=dict)
    last: dict[int, float] = field(default_factory=dict)
    preemptions: int = 0


@dataclass
class Step:
    """One step: the scheduler's output, the requests that sample a token in it, and its duration."""

    output: Any
    samples: list[str]
    seconds: float


class Server:
    """vLLM's scheduler with a fake model runner: our cost model gives the durations, tokens are dummies."""

    def __init__(self, case: Case, costs: IterationCost, folder: str, kind: type[Scheduler]) -> None:
        limits = case.limits
        blocks = limits.kv_tokens // BLOCK_TOKENS + NULL_BLOCKS
        config = VllmConfig(
            model_config=ModelConfig(
                model=folder, skip_tokenizer_init=True, dtype="float16", max_model_len=CONTEXT
            ),
            cache_config=CacheConfig(block_size=BLOCK_TOKENS, enable_prefix_caching=False),
            scheduler_config=SchedulerConfig(
                max_num_seqs=limits.max_num_seqs,
                max_num_batched_tokens=limits.max_num_batched_tokens,
                max_model_len=CONTEXT,
                is_encoder_decoder=False,
                long_prefill_token_threshold=limits.long_prefill_token_threshold,
                scheduler_reserve_full_isl=limits.reserve_full_prompt,
                async_scheduling=kind is AsyncScheduler,
            ),
            device_config=DeviceConfig(device="cpu"),
        )
        config.cache_config.num_gpu_blocks = blocks
        spec = FullAttentionSpec(block_size=BLOCK_TOKENS, num_kv_heads=1, head_size=1, dtype=torch.float16)
        cache = KVCacheConfig(
            num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)]
        )
        self.scheduler = kind(config, cache, StructuredOutputManager(config), BLOCK_TOKENS)
        self._costs = costs
        self._decoding: set[str] = set()
        self.times = Times()

    def add(self, sequence: Sequence) -> None:
        """Submit a request."""
        sampling = SamplingParams(max_tokens=sequence.output, ignore_eos=True)
        request = Request(
            str(sequence.index), [0] * sequence.prompt, sampling, None, arrival_time=sequence.arrived_s
        )
        self.scheduler.add_request(request)

    def plan(self) -> Step:
        """Let the scheduler plan a step."""
        output = self.scheduler.schedule()
        preempted = output.preempted_req_ids or set()
        self.times.preemptions += len(preempted)
        self._decoding -= preempted
        decodes = context = prefill = 0
        pairs = 0.0
        samples = []
        for name, tokens in output.num_scheduled_tokens.items():
            request = self.scheduler.requests[name]
            before = request.num_computed_tokens - tokens
            if name in self._decoding:
                decodes, context = decodes + 1, context + before
            else:
                prefill, pairs = prefill + tokens, pairs + tokens * (before + (tokens + 1) / 2)
            if not request.is_prefill_chunk:
                samples.append(name)
                self._decoding.add(name)
        if prefill:
            seconds = self._costs.mixed_s(decodes, context, prefill, pairs)
        else:
            seconds = self._costs.decode_run_s(decodes, context, 1) if decodes else 0.0
        return Step(output, samples, seconds)

    def finish(self, step: Step, now_s: float) -> None:
        """Report a finished step to the scheduler."""
        names = list(step.output.num_scheduled_tokens)
        sampled = set(step.samples)
        requests = {name: self.scheduler.requests.get(name) for name in names}
        self.scheduler.update_from_output(
            step.output,
            ModelRunnerOutput(
                req_ids=names,
                req_id_to_index={name: at for at, name in enumerate(names)},
                sampled_token_ids=[[0] if name in sampled else [] for name in names],
                logprobs=None,
                prompt_logprobs_dict={},
                pooler_output=[],
            ),
        )
        for name, request in requests.items():
            if name in sampled:
                self.times.first.setdefault(int(name), now_s)
            if request is not None and request.status == RequestStatus.FINISHED_LENGTH_CAPPED:
                self.times.last[int(name)] = now_s


def run_sync(server: Server, arrivals: list[Sequence]) -> Times:
    """Run steps one after another, as EngineCore.step does: schedule, run, update."""
    pending, now_s = deque(arrivals), 0.0
    while pending or server.scheduler.has_unfinished_requests():
        if not server.scheduler.has_unfinished_requests():
            now_s = max(now_s, pending[0].arrived_s)
        while pending and pending[0].arrived_s <= now_s:
            server.add(pending.popleft())
        step = server.plan()
        now_s += step.seconds
        server.finish(step, now_s)
    return server.times


def run_async(server: Server, arrivals: list[Sequence]) -> Times:
    """Schedule a step while the previous one runs: EngineCore.step_with_batch_queue, at most two batches."""
    pending, now_s, free_s = deque(arrivals), 0.0, 0.0
    queue: deque[tuple[Step, float]] = deque()
    while pending or queue or server.scheduler.has_unfinished_requests():
        if not queue and not server.scheduler.has_unfinished_requests():
            now_s = max(now_s, pending[0].arrived_s)
        while pending and pending[0].arrived_s <= now_s:
            server.add(pending.popleft())
        if server.scheduler.has_requests():
            step = server.plan()
            free_s = max(free_s, now_s) + step.seconds
            queue.append((step, free_s))
            if len(queue) == 1:
                continue
        if queue:
            step, end_s = queue.popleft()
            now_s = max(now_s, end_s)
            server.finish(step, now_s)
    return server.times


def run_simulated(case: Case, costs: IterationCost, arrivals: list[Sequence]) -> Times:
    """Run the simulated instance."""
    instance, times = VllmInstance(costs, case.limits), Times()
    for sequence in [*arrivals, None]:
        until_s = inf if sequence is None else sequence.arrived_s
        while instance.until_s < inf and instance.until_s <= until_s:
            at_s = instance.until_s
            times.last |= {done.index: at_s for done in instance.finish_run()}
        if sequence is not None:
            instance.arrive(sequence, sequence.arrived_s)
    times.first = {sequence.index: sequence.first_token_s for sequence in arrivals}
    times.preemptions = instance.preemptions
    return times


def requests(case: Case) -> list[Sequence]:
    """Draw the requests of a case."""
    rng = np.random.default_rng(3)
    arrivals = np.cumsum(rng.exponential(case.every_s, REQUESTS)).tolist()
    prompts = rng.integers(1, case.longest_prompt, REQUESTS).tolist()
    outputs = rng.geometric(1 / case.mean_output, REQUESTS).tolist()
    return [
        Sequence(index, p, min(o, CONTEXT - p), at)
        for index, (p, o, at) in enumerate(zip(prompts, outputs, arrivals, strict=True))
    ]


def largest_difference(ours: dict[int, float], theirs: dict[int, float]) -> float:
    """Return the largest difference in seconds; inf if the two do not hold the same requests."""
    return inf if ours.keys() != theirs.keys() else max(abs(ours[index] - at) for index, at in theirs.items())


def main() -> None:
    """Print one row per case; exit with 1 if a schedule differs."""
    costs = IterationCost(tuple(0.01 + 0.0001 * tokens for tokens in range(2_049)), 1e-7, 1e-9)
    print(f"vLLM {vllm.__version__}, {REQUESTS:,} requests a row\n", file=sys.stderr)
    columns = (
        "server",
        "preemptions: ours / Scheduler",
        "largest difference of a first or last token",
        "TTFT P50 / P99, s",
    )
    later_columns = ("AsyncScheduler: preemptions", "TTFT P50 / P99, s", "last token, mean difference")
    print(f"| {' | '.join((*columns, *later_columns))} |")
    print("|---|---|---|---|---|---|---|", flush=True)
    differs = False
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(MODEL))
        for case in CASES:
            if len(sys.argv) > 1 and case.name.split()[0] not in sys.argv:
                continue
            ours = run_simulated(case, costs, requests(case))
            theirs = run_sync(Server(case, costs, folder, Scheduler), requests(case))
            difference = max(
                largest_difference(ours.first, theirs.first), largest_difference(ours.last, theirs.last)
            )
            differs |= difference >= SAME_S or ours.preemptions != theirs.preemptions
            shown = "none" if difference < SAME_S else f"{difference:.3f} s"
            preemptions = f"{ours.preemptions} / {theirs.preemptions}"
            print(f"| {case.name} | {preemptions} | {shown} | {_ttft(case, ours)} |", end=" ", flush=True)
            overlapped = run_async(Server(case, costs, folder, AsyncScheduler), requests(case))
            delay_s = np.mean([overlapped.last[index] - ours.last[index] for index in range(REQUESTS)])
            print(f"{overlapped.preemptions} | {_ttft(case, overlapped)} | {delay_s:+.3f} s |", flush=True)
    sys.exit(differs)


def _ttft(case: Case, times: Times) -> str:
    waits = [times.first[sequence.index] - sequence.arrived_s for sequence in requests(case)]
    return "{:.3f} / {:.3f}".format(*np.percentile(waits, [50, 99]))


if __name__ == "__main__":
    main()
