"""Whether a model's servers leave tools out of the prompt that a request forbids to call (`tool_choice: none`).

vLLM shows them to the model unless it was started with --exclude-tools-when-tool-choice-none; SGLang leaves them
out. The body does not say which server it meets, and tools are often most of a prompt. So such a request is
estimated both ways, and its usage shows which one it was, if they differ enough that no error of an estimate
explains it. Until a few responses in a row, and most sources, agree that tools are left out, they count: that
errs on the safe side, and what they cost teaches nothing, since tools at no cost would make all other tools
cheaper. One response that contradicts ends it, and teaches nothing else: its features are those of a prompt
without tools. One client with tools that no estimate fits does not begin it for others. Each end doubles the
responses that it takes to begin again: behind a name with both kinds of servers, or with clients that make
their tools look as if they were left out, the prompts that are estimated too short become fewer and fewer. This
belongs to one process, which needs three responses to find out.
"""

from typing import Final

from msgspec.structs import replace

from extproc.core.estimator.evidence import Evidence
from extproc.core.estimator.sources import Sources
from extproc.core.facts import RequestFacts
from extproc.core.usage import Usage

__all__ = ["UnusedTools"]

ENOUGH: Final = 3
MOST: Final = 0.5


class UnusedTools:
    """What the responses of one model say about tools that the request forbids to call."""

    def __init__(self) -> None:
        self._left_out_in_a_row = 0
        self._enough = ENOUGH
        self._sources = Sources()

    @property
    def are_left_out(self) -> bool:
        """Whether the prompts of this model are believed not to have them."""
        return self._left_out_in_a_row >= self._enough and self._sources.share > MOST

    def observe(self, evidence: Evidence, usage: Usage) -> None:
        """Take in a response, which may show nothing."""
        left_out = evidence.shows_left_out(usage)
        if left_out is False:
            self.are_kept(evidence.source)
        elif left_out:
            self._sources.observe(evidence.source, held=True)
            self._left_out_in_a_row += 1

    def are_kept(self, source: int) -> None:
        """Called when a prompt of a source is seen to have them."""
        if self.are_left_out:
            self._enough *= 2
        self._sources.observe(source, held=False)
        self._left_out_in_a_row = 0

    def both_ways(self, facts: RequestFacts) -> tuple[RequestFacts, RequestFacts]:
        """Return the facts of the prompt that servers are believed to make of a request, and of the other one."""
        kept = len(facts.text) - facts.unused_tools_bytes
        without = replace(facts, text=facts.text[:kept], tools=0, unused_tools_bytes=0)
        return (without, facts) if self.are_left_out else (facts, without)
