"""The commands that start the pools' servers so that they fit the router's pools.

A pool without `max_model_len` has no head-room: the router then decides by the upper bound alone. Head-room of a
quarter is recommended (docs/pools.md). A comment in the output says so; the flags do not include it silently,
because the router's configuration must include it, too.
"""

from extproc.config.schema import Configuration
from extproc.core.placing.pool import Pool
from extproc.gateways.router import pools_from

__all__ = ["render_vllm"]

# The same KV cache holds more sequences if they are shorter: 16 of 65,536 tokens, or 128 of 8,192.
TOKENS_IN_FLIGHT = 1 << 20
MOST_SEQUENCES = 1_024


def render_vllm(configuration: Configuration) -> str:
    """Return a command for each pool, smallest first."""
    pools = configuration.pools
    return "\n".join(_command(pool, largest=len(pools_from(pools, pool)) == 1) for pool in pools)


def _command(pool: Pool, *, largest: bool) -> str:
    sequences = min(MOST_SEQUENCES, max(1, TOKENS_IN_FLIGHT // pool.max_budget_tokens))
    lines = [f"# {pool.name}: budgets up to {pool.max_budget_tokens:,} tokens{_room(pool, largest=largest)}"]
    if not largest:
        lines.append("# --max-num-seqs: as many as fit the KV cache of the largest pool's servers; measure yours.")
    model = next((name for name in pool.models if not set(name) & set("*?[")), "MODEL")
    flags = f"--max-model-len {pool.context_tokens} --max-num-seqs {sequences}"
    return "\n".join([*lines, f"vllm serve {model} {flags} --port 8000", ""])


def _room(pool: Pool, *, largest: bool) -> str:
    room = pool.context_tokens - pool.max_budget_tokens
    if room:
        return f", and head-room of {room:,} for errors of the estimate"
    if largest:
        return ""
    recommended = pool.max_budget_tokens * 5 // 4
    return f"; no head-room (recommended: max_model_len: {recommended}, here and in the router's pools)"
