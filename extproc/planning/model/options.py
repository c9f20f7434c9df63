"""Command-line options for model, GPU, knobs, objective and prices, and the setup made from them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from extproc.core.errors import ConfigurationError
from extproc.planning.hardware.capacity import smallest_tensor_parallel
from extproc.planning.hardware.instance import Instance
from extproc.planning.hardware.profiles import MAX_BATCHED_TOKENS, Catalogue
from extproc.planning.model.engine import Engine
from extproc.planning.model.objective import Objective, parse_objective
from extproc.planning.model.setup import MeasuredRates, Setup, SlotRule, Times
from extproc.planning.workload.lengths import MAX_TOKENS

__all__ = ["ProfileOptions", "first_setup", "setup_of"]

# Smallest and largest value of each option, in its own unit. They cover what hardware and vLLM allow, and keep all
# sums finite.
RANGES = {
    "tp": (1, 1_024),
    "dp": (1, 1_024),
    "long_context": (1_024, MAX_TOKENS),
    "weight_bytes": (0.25, 8),
    "kv_bytes": (0.25, 8),
    "batched_tokens": (1, MAX_BATCHED_TOKENS),
    "price": (0.01, 1_000_000),
    "spare": (0, 1_000_000),
}
MEASURED_RANGE = (1e-6, 1e6)


@dataclass(frozen=True, slots=True)
class ProfileOptions:
    """Options of `dualpool plan` for model, GPU, knobs, objective (seconds, shares) and prices (USD per GPU-hour).

    `tp` None means the fewest GPUs that fit, `dp` None one replica of the attention. `objective` sets objectives
    by length; times that it does not name are `ttft` and `tpot_ms`. `measured` holds requests per second of one
    instance: homogeneous, short, long, right-sized.
    """

    model: str = "llama-3-70b"
    gpu: str = "a100-80g"
    tp: int | None = None
    dp: int | None = None
    long_context: int = 65_536
    weight_bytes: float | None = None
    kv_bytes: float = 2.0
    slots: str = "paged"
    batched_tokens: int | None = None
    spare: int = 1
    price: float | None = None
    measured: str | None = None
    ttft: float = 2.0
    tpot_ms: float = 80.0
    success: float = 0.999
    objective: str | None = None
    times: str = "auto"
    engine: str = "vllm-0.32"


def first_setup(options: ProfileOptions, gpus: Sequence[str], catalogue: Catalogue) -> Setup:
    """Return the setup of the first of these GPUs that holds the model.

    Raises the first one's ConfigurationError if none does.
    """
    refused: list[ConfigurationError] = []
    for gpu in gpus:
        try:
            return setup_of(replace(options, gpu=gpu), catalogue)
        except ConfigurationError as error:
            refused.append(error)
    raise refused[0]


def setup_of(options: ProfileOptions, catalogue: Catalogue) -> Setup:
    """Return the instance, its pools' limits, the objective and the prices.

    Raises ConfigurationError that names the option, its value and the allowed values.
    """
    for name, (least, most) in RANGES.items():
        value = getattr(options, name)
        if value is not None and not least <= value <= most:
            raise ConfigurationError(
                f"--{name.replace('_', '-')} {value:g}: must be at least {least:,} and at most {most:,}"
            )
    model, gpu = catalogue.model(options.model), catalogue.gpu(options.gpu)
    if options.weight_bytes is not None:
        model = replace(model, weight_bytes=options.weight_bytes, published_weight_bytes=model.weight_bytes)
    attention = model.attention
    if options.tp is not None and not attention.splits_over(options.tp):
        kv_heads = "".join(f" and {heads} KV heads" for heads in sorted(attention.all_kv_heads))
        raise ConfigurationError(
            f"--tp {options.tp}: vLLM splits attention heads evenly over GPUs, and {options.model} has "
            f"{attention.query_heads}{kv_heads}: a divisor of each is needed, or for KV heads a multiple"
        )
    if (options.dp or 1) > 1 and model.routed is None:
        raise ConfigurationError(
            f"--dp {options.dp}: {options.model} has no experts to share, so data parallelism is the same as more "
            "instances"
        )
    if (options.dp or 1) > 1 and Engine(options.engine) is Engine.SGLANG:
        raise ConfigurationError(
            f"--dp {options.dp}: is only supported for vLLM, not with --engine {options.engine}"
        )
    pages = Engine(options.engine).state_pages
    instance = Instance(model, gpu, options.tp or 1, options.kv_bytes, options.dp or 1, pages)
    if options.tp is None:
        instance = smallest_tensor_parallel(instance, options.long_context, f"{options.model} on {options.gpu}")
    return Setup(
        model_name=options.model,
        gpu_name=options.gpu,
        instance=instance,
        long_context=options.long_context,
        objective=_objective(options),
        slots=SlotRule(options.slots),
        spare=options.spare,
        price_usd_h=options.price if options.price is not None else gpu.price_usd_h,
        measured=_measured(options.measured),
        batched_tokens=options.batched_tokens,
        times=Times(options.times),
        engine=Engine(options.engine),
    )


def _objective(options: ProfileOptions) -> Objective:
    plain = Objective(options.ttft, options.tpot_ms / 1e3, options.success)
    return plain if options.objective is None else parse_objective(options.objective, plain)


def _measured(text: str | None) -> MeasuredRates | None:
    if text is None:
        return None
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigurationError(f"--measured {text!r}: numbers are needed, as in 2.8,11.2,2.8") from error
    if len(rates) not in {3, 4}:
        raise ConfigurationError(f"--measured {text!r}: three or four numbers are needed, as in 2.8,11.2,2.8")
    least, most = MEASURED_RANGE
    if not all(least <= rate <= most for rate in rates):
        raise ConfigurationError(
            f"--measured {text!r}: requests per second must be positive, from {least:g} to {most:,.0f}"
        )
    return MeasuredRates(*rates)
