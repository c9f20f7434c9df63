"""Our roofline compared with measured iteration times, for each GPU and degree of tensor and data parallelism.

python -m bench.planner_times        requires dualpool[measured]; tokens are per replica of the attention
"""

from collections.abc import Iterator

from extproc.core.errors import ConfigurationError
from extproc.planning.hardware.capacity import capacity
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.instance import Instance
from extproc.planning.hardware.measured import measured_cost
from extproc.planning.hardware.profiles import Catalogue
from extproc.planning.hardware.roofline import iteration_cost
from extproc.planning.model.times import CHUNKS, CONTEXT, SEQUENCES, agreement

GPUS = ("a100-80g", "h100-80g", "h200", "b200")
SHAPES = ((1, 1), (4, 1), (8, 1))  # (GPUs that share the attention, replicas of it)
REPLICATED = ((4, 2), (2, 4), (1, 8))
KV_OF = ("deepseek-v3", "qwen3-235b-a22b")


def main() -> None:
    """Print one row per model, GPU and shape that fits: roofline / measured."""
    catalogue = built_in()
    print(f"| model, GPUs | decoding {SEQUENCES} sequences of {CONTEXT:,} | a prefill of {CHUNKS} tokens |")
    print("|---|---|---|")
    for model in ("llama-3-8b", "llama-3-70b", "qwen3-235b-a22b", "deepseek-v3"):
        for gpu in GPUS:
            for shape in SHAPES if model.startswith("llama") else (*SHAPES, *REPLICATED):
                for row in _row(catalogue, model, gpu, *shape):
                    print(row)


def _row(catalogue: Catalogue, model: str, gpu: str, size: int, ranks: int) -> Iterator[str]:
    instance = Instance(catalogue.model(model), catalogue.gpu(gpu), size, data_parallel=ranks)
    try:
        kv_tokens = ranks * capacity(instance, model).kv_tokens
    except ConfigurationError:  # the model does not fit
        return
    measured, roofline = measured_cost(instance, max(CHUNKS)), iteration_cost(instance, max(CHUNKS))
    if measured is None:
        yield f"| {model}, {instance.parallelism} x {gpu} | not measured | |"
        return
    ratios = agreement(roofline, measured.cost)
    name = f"{model}, {instance.parallelism} x {gpu}"
    if model in KV_OF:
        name += f", {kv_tokens:,} tokens of KV"
    yield f"| {name} | {_ratios(ratios.decode)} | {_ratios(ratios.prefill)} |"


def _ratios(ratios: dict[int, float]) -> str:
    return " / ".join(f"{ratio:.2f}" for ratio in ratios.values())


if __name__ == "__main__":
    main()
