"""Learning from the entries of the gateway's access log."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import TypeVar

import msgspec

from extproc.access_log.entry import LogEntry
from extproc.access_log.seal import Seal, Unsealed, Untrusted
from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.estimator.evidence import Evidence
from extproc.core.estimator.protocol import Refused
from extproc.core.facts import RequestHead, ResponseHead
from extproc.core.listener import Observation
from extproc.core.placing.decision import Decision
from extproc.core.placing.policy import Pool
from extproc.core.reading.usages import checked_usage
from extproc.core.router.learner import Learner
from extproc.core.usage import Usage

__all__ = ["Outcome", "Teacher", "pools_by_cluster"]

T = TypeVar("T")
U = TypeVar("U")


class Outcome(StrEnum):
    """The result of processing an entry; a metric label."""

    TAUGHT = "taught"
    NOT_LEARNED = "not_learned"  # has our evidence, but no usage that could be learned from
    FOREIGN = "foreign"  # without our evidence: another virtual host's, or undecided
    FORGED = Untrusted.FORGED.value
    OTHER_VERSION = Untrusted.OTHER_VERSION.value
    EXPIRED = Untrusted.EXPIRED.value
    TOO_LARGE = "too_large"  # a message that is too large to decode, counted as one entry


def pools_by_cluster(pools: Sequence[Pool]) -> dict[str, Pool]:
    """Return the pool of each of the gateway's clusters; configured `clusters` override derived names."""
    named = {cluster: pool for pool in pools for cluster in pool.clusters}
    return {f"{prefix}{pool.name}": pool for pool in pools for prefix in ("", "pool_")} | named


class _Opened(msgspec.Struct, frozen=True, gc=False):
    """An entry, and the decision that its evidence describes."""

    entry: LogEntry
    decision: Decision


class Teacher:
    """Feeds the entries to a learner; `clusters` maps the gateway's clusters to pools."""

    def __init__(self, learner: Learner, seal: Seal, clusters: Mapping[str, Pool]) -> None:
        self._learner = learner
        self._seal = seal
        self._clusters = clusters

    def take(self, entries: Sequence[LogEntry], now_s: float) -> list[Outcome]:
        """Learn from some entries; return their outcomes.

        Each step is done for all of them before the next. The code of a step then runs several times in a row, so
        that it is in the processor's caches (bench/results.md, "Learning from the access log"). An exception
        is reported to the learner's listener, and its entry has no outcome.
        """
        opened = self._each(partial(self._open, now_s), entries)
        learned = self._each(self._learn, opened)
        return self._each(self._report, learned)

    def _each(self, step: Callable[[T], U], items: Iterable[T]) -> list[U]:
        done = []
        for item in items:
            try:
                done.append(step(item))
            except Exception as error:  # noqa: BLE001  (the next entry may be fine)
                self._learner.listener.failed(error)
        return done

    def _open(self, now_s: float, entry: LogEntry) -> _Opened | Outcome:
        if not entry.evidence:
            return Outcome.FOREIGN
        try:
            decision = self._seal.open(entry.evidence, now_s, RequestHead(request_id=entry.request_id))
        except Unsealed as error:
            return Outcome(error.why.value)
        return _Opened(entry, decision)

    def _learn(self, opened: _Opened | Outcome) -> Observation | Outcome:
        if isinstance(opened, Outcome):
            return opened
        entry, decision = opened.entry, opened.decision
        head = ResponseHead(entry.status, "", entry.content_encoding, entry.attempts)
        served_by = self._clusters.get(entry.cluster)
        if entry.status:
            self._learner.responded(decision, head, served_by)
        try:
            usage = self._usage(entry, head, decision, served_by)
        except ResponseNotUnderstood as error:
            # It is not a fault if a stream that was not asked for usage does not report it.
            if decision.learnable or error.fault is not ResponseFault.NO_USAGE:
                self._learner.not_learned(decision, error.fault)
            return Outcome.NOT_LEARNED
        return self._learner.observe(decision, head, usage, served_by)

    def _report(self, learned: Observation | Outcome) -> Outcome:
        if isinstance(learned, Outcome):
            return learned
        self._learner.listener.observed(learned)
        return Outcome.NOT_LEARNED if learned.learning.refused is Refused.IMPLAUSIBLE else Outcome.TAUGHT

    def _usage(self, entry: LogEntry, head: ResponseHead, decision: Decision, served_by: Pool | None) -> Usage:
        said = entry.usage
        if not head.succeeded:
            raise ResponseNotUnderstood(ResponseFault.STATUS)
        if said is None:
            raise ResponseNotUnderstood(_why_none(entry))
        if not said.whole:
            raise ResponseNotUnderstood(ResponseFault.WRONG_USAGE)
        usage = checked_usage(said.prompt_tokens, said.completion_tokens, said.cached_tokens, cut_by_length=False)
        return self._with_end(usage, decision, served_by or decision.pool, cut=entry.cut)

    def _with_end(self, usage: Usage, decision: Decision, pool: Pool, *, cut: bool) -> Usage:
        """Return the usage with `cut_by_length` inferred, which the log lacks: True if the output reached a limit.

        True also if the response was cut short after it had reported usage, as vLLM does with every event if
        asked to. Nothing can be inferred from several outputs, whose tokens are added up. vLLM stops at the
        context length or one token before it, depending on the version.
        """
        context = self._learner.serving.ladder(decision.model).context_tokens(pool)
        evidence = None if decision.estimate is None else decision.estimate.evidence
        if not isinstance(evidence, Evidence) or not evidence.has_one_output(usage):
            return usage
        limit = evidence.output_limit
        at_limit = limit is not None and usage.completion_tokens >= limit
        at_context = usage.prompt_tokens + usage.completion_tokens >= context - 1
        if not (cut or at_limit or at_context):
            return usage
        return Usage(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, cut_by_length=True)


def _why_none(entry: LogEntry) -> ResponseFault:
    if entry.cut:
        return ResponseFault.CUT_SHORT
    return ResponseFault.NO_USAGE if entry.content_encoding in ("", "identity") else ResponseFault.ENCODING
