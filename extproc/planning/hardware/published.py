"""Published figures of real vLLM servers, compared with the roofline model.

Nothing is fitted to these; they show how far to trust the model. `published_checks` yields modelled / published
for each, with the simulator running the same benchmark: a fixed batch, or 200 requests at once. `KV_LOGS` are KV
cache sizes that servers logged, to compare with those of `capacity.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from extproc.planning.hardware.capacity import capacity
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.instance import Instance
from extproc.planning.hardware.profiles import GpuProfile
from extproc.planning.hardware.roofline import iteration_cost
from extproc.planning.model.throughput import InstanceLimits
from extproc.planning.simulation.instance import VllmInstance
from extproc.planning.simulation.sequence import Sequence

__all__ = ["KV_LOGS", "LARGEST_GAP_GIB", "Published", "PublishedCheck", "PublishedKv", "published_checks"]

SHAREGPT_REQUESTS = 200


@dataclass(frozen=True, slots=True)
class Published:
    """One published figure: `what`, measured in `unit`, with `batch` requests at once."""

    source: str
    model: str
    gpu: str
    gpus: int
    what: str
    unit: str
    figure: float
    batch: int
    prompt: int
    output: int
    weight_bytes: float = 2.0


@dataclass(frozen=True, slots=True)
class PublishedCheck:
    """A published figure and the model's."""

    published: Published
    modelled: float

    @property
    def ratio(self) -> float:
        """Modelled / published."""
        return self.modelled / self.published.figure


_CI = "vLLM performance benchmark, buildkite.com/vllm/performance-benchmark/builds/9515"
_ISSUE = "vllm-project/vllm issue 12315 (vLLM 0.6.6; the reporter fell short of the dashboard's 5.13 req/s)"
_NIM = "docs.nvidia.com/nim/benchmarking/llm/1.0.0/performance (NIM 1.8.0, engine not stated)"
FIGURES = (
    Published(_CI, "llama-3-8b", "h200", 1, "latency", "s", 0.8334, 8, 32, 128),
    Published(_CI, "llama-3-70b", "h200", 4, "latency", "s", 2.0775, 8, 32, 128),
    Published(_ISSUE, "llama-3-70b", "a100-80g", 4, "latency", "s", 4.946, 8, 32, 128),
    Published(
        "johnmusgrave.com/p/vllm-throughput-latency-sweep-on (vLLM 0.23.0: about 75 tokens/s)",
        "llama-3-8b",
        "a100-40g",
        1,
        "TPOT",
        "s",
        1 / 75,
        1,
        1024,
        128,
    ),
    Published(
        "yobitelcomm.github.io/bench/recipes/concurrency-sweep (vLLM 0.21.0; lengths not stated)",
        "llama-3-8b",
        "h100-80g",
        1,
        "TPOT",
        "s",
        0.00648,
        1,
        256,
        128,
    ),
    Published(_NIM, "llama-3-70b", "h100-80g", 2, "TPOT", "s", 0.01858, 1, 5000, 500, weight_bytes=1),
    Published(_NIM, "llama-3-70b", "h100-80g", 2, "TTFT", "s", 0.40677, 1, 5000, 500, weight_bytes=1),
    # 200 ShareGPT prompts at once; their mean lengths (213 in, 218 out) follow from the token rates in the issue.
    Published(_CI, "llama-3-8b", "h200", 1, "throughput", "req/s", 22.57, SHAREGPT_REQUESTS, 213, 218),
    Published(_CI, "llama-3-70b", "h200", 4, "throughput", "req/s", 9.839, SHAREGPT_REQUESTS, 213, 218),
    Published(_ISSUE, "llama-3-70b", "a100-80g", 4, "throughput", "req/s", 3.28, SHAREGPT_REQUESTS, 213, 218),
)


@dataclass(frozen=True, slots=True)
class PublishedKv:
    """The memory per GPU that vLLM logged as free for the KV cache, in GiB; if negative, it does not start."""

    source: str
    model: str
    gpu: str
    gpus: int
    utilisation: float
    logged_gib: float
    weight_bytes: float | None = None

    @property
    def modelled_gib(self) -> float:
        """The same figure as computed by `capacity.py`."""
        model = built_in().model(self.model)
        instance = Instance(
            replace(model, weight_bytes=self.weight_bytes or model.weight_bytes), _gpu(self.gpu), self.gpus
        )
        tokens = capacity(instance, self.model, self.utilisation).kv_tokens
        return tokens * instance.kv_bytes_per_token_and_gpu / 2**30


# Small dense models are right within 3 %. If weights fill the GPUs, the model claims too much: it counts neither
# activations nor a kernel's padding of 4-bit weights (gpt-oss-120b: 60.8 GiB in the checkpoint, 65.97 loaded).
KV_LOGS = (
    PublishedKv("vllm-project/vllm PR 10511", "llama-3-8b", "h100-80g", 1, 0.9, 53.29),
    PublishedKv("the same, what its lines leave", "llama-3-8b", "h100-80g", 2, 0.9, 58.97),
    PublishedKv("issue 21348 (July 2025)", "qwen3-235b-a22b", "h100-80g", 4, 0.9, 8.11, weight_bytes=1),
    PublishedKv("issue 23278 (August 2025)", "gpt-oss-120b", "h100-80g", 1, 0.9, -2.14),
    PublishedKv("issue 27508 (October 2025)", "gpt-oss-120b", "h100-80g", 1, 0.95, 1.71),
)
LARGEST_GAP_GIB = 8.3  # modelled minus logged, the largest of KV_LOGS


def published_checks() -> Iterator[PublishedCheck]:
    """Run each published benchmark on the instance model."""
    for figure in FIGURES:
        yield PublishedCheck(figure, _modelled(figure))


def _modelled(figure: Published) -> float:
    instance = Instance(
        replace(built_in().model(figure.model), weight_bytes=figure.weight_bytes), _gpu(figure.gpu), figure.gpus
    )
    batched = max(instance.gpu.vllm_limits[0], figure.prompt)
    limits = InstanceLimits(256, batched, capacity(instance, figure.model).kv_tokens, 131_072)
    server = VllmInstance(iteration_cost(instance, batched), limits)
    sequences = _sequences(figure)
    for sequence in sequences:
        server.arrive(sequence, 0.0)
    end_s = 0.0
    while server.until_s < inf:
        end_s = server.until_s
        server.finish_run()
    first_s = sequences[0].first_token_s
    return {
        "latency": end_s,
        "TTFT": first_s,
        "TPOT": (end_s - first_s) / (figure.output - 1),
        "throughput": figure.batch / end_s,
    }[figure.what]


def _gpu(name: str) -> GpuProfile:
    catalogue = built_in()
    if name == "a100-40g":  # like the 80 GB model, but with 1,555 GB/s (NVIDIA A100 data sheet)
        return replace(catalogue.gpu("a100-80g"), memory_gb=40, bandwidth_gb_s=1555)
    return catalogue.gpu(name)


def _sequences(figure: Published) -> list[Sequence]:
    if figure.what != "throughput":
        return [Sequence(index, figure.prompt, figure.output, 0.0) for index in range(figure.batch)]
    rng = np.random.default_rng(0)
    prompts = rng.geometric(1 / figure.prompt, figure.batch).tolist()
    outputs = rng.geometric(1 / figure.output, figure.batch).tolist()
    return [Sequence(index, p, o, 0.0) for index, (p, o) in enumerate(zip(prompts, outputs, strict=True))]
