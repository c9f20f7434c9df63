"""Searches that are the same simulation under two names: one pool, with nothing refused or truncated."""

from dataclasses import replace

from extproc.planning.simulation.search import FoundFleet
from extproc.planning.simulation.task import Design, SearchTask
from extproc.planning.workload.declared import declared_tokens

__all__ = ["renamed", "same_search"]


def same_search(task: SearchTask, other: SearchTask) -> bool:
    """Return whether two tasks differ only in the context of their one pool, and every request fits both."""
    contexts = task.design.contexts, other.design.contexts
    own = any(each.design.setups or each.design.model_lens for each in (task, other))
    if own or any(len(each) > 1 for each in contexts) or replace(other, design=task.design) != task:
        return False
    narrow = min(contexts)[0]
    limits, others = (each.setup.limits(each.design.contexts[0]) for each in (task, other))
    return replace(limits, context_tokens=narrow) == replace(others, context_tokens=narrow) and _fits(task, narrow)


def renamed(found: tuple[FoundFleet, ...], design: Design) -> tuple[FoundFleet, ...]:
    """Return results of one pool under the name and context of another design."""
    name = f"{design.contexts[0]:,}"
    return tuple(
        replace(
            fleet,
            design=design,
            summary=replace(fleet.summary, pools=tuple(replace(use, name=name) for use in fleet.summary.pools)),
        )
        for fleet in found
    )


def _fits(task: SearchTask, context_tokens: int) -> bool:
    """Return whether every request is accepted and answered in full; as in the simulator, lengths are at least 1
    token.
    """
    lengths = task.lengths
    declared = declared_tokens(lengths, task.rule)
    longest = lengths.prompt.clip(1) + lengths.output.clip(1)
    if declared is not None:
        longest = longest.clip(lengths.prompt.clip(1) + declared)
    return int(longest.max()) <= context_tokens
