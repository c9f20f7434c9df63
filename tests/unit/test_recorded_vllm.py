"""What a real vLLM responded (`make vllm`, tests/golden/vllm.py), against the router and the emulator."""

import asyncio
import json
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import httpx
import pytest
from prometheus_client import CollectorRegistry

from extproc.compose import compose
from extproc.config.loading import parse
from extproc.core.apis.response import reader_for
from extproc.core.errors import ResponseNotUnderstood
from extproc.core.facts import RequestHead, ResponseHead
from extproc.core.placing.decision import Decision
from extproc.core.router.router import Router
from extproc.core.usage import Overflow, Usage
from extproc.emulator import Emulator, EmulatorSettings
from extproc.emulator.settings import TokenizerName, VllmVersion
from extproc.telemetry.metrics import Metrics
from tests.golden.vllm import VERSIONS, recording
from tests.golden.vllm_cases import CASES, CONTEXT_TOKENS, Case
from tests.plain import NO_AUTHORITIES

RESPONSES: Final[dict[str, dict[str, Any]]] = {
    version: json.loads(recording(version).read_text()) for version in VERSIONS
}
EMULATED: Final = dict(zip(VERSIONS, VllmVersion, strict=True))
# A pool whose context is exactly that of the server which was asked, and no head-room.
POOLS = f"pools: [{{name: short, max_budget_tokens: {CONTEXT_TOKENS}}}, {{name: long, max_budget_tokens: 65536}}]"
# What the emulator does not imitate: a model without eyes, a template that leaves tools out, other names, and the
# characters of marks.
NOT_EMULATED: Final = ("image", "tool calls", "another model", "characters")


def body_of(case: Case) -> bytes:
    """Return the body of a request."""
    return (case[1] if isinstance(case[1], str) else json.dumps(case[1])).encode()


@cache
def new_router() -> Router:
    """Return a router that has learned nothing; decisions teach it nothing either."""
    return compose(parse(POOLS), Metrics(CollectorRegistry(), max_models=50, max_categories=50))


def decided(case: Case) -> Decision:
    """Return the decision of a router that has learned nothing yet."""
    router, head = new_router(), RequestHead("POST", case[0])
    api = router.api_of(head)
    assert api is not None
    return router.decide(api, head, body_of(case))


def read(version: str, name: str) -> Usage | Overflow | None:
    """Return what the router reads from the response to a case; None if it reads neither usage nor a refusal."""
    recorded, decision = RESPONSES[version][name], decided(CASES[name])
    try:
        reader = reader_for(decision.api, ResponseHead(recorded["status"], recorded["type"], ""), 1 << 20)
        reader.feed(recorded["body"].encode())
        return reader.finish()
    except ResponseNotUnderstood:
        return None


def usage_in(recorded: dict[str, Any]) -> tuple[int, int] | None:
    """Return the last tokens of prompt and output that a response names."""
    texts = recorded["body"].split("\n") if recorded["type"] == "text/event-stream" else [recorded["body"]]
    found = None
    for text in texts:
        if (said := text.removeprefix("data: "))[:1] == "{":
            value = json.loads(said)
            usage = value.get("usage") or value.get("response", {}).get("usage")
            if usage:
                prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
                found = prompt, usage.get("completion_tokens", usage.get("output_tokens"))
    return found


def is_refused_for_length(recorded: dict[str, Any]) -> bool:
    """Return whether a response refuses a request for its length."""
    body = recorded["body"]
    return recorded["status"] != httpx.codes.OK and ("maximum context length" in body or "max_model_len" in body)


def is_cut(recorded: dict[str, Any], case: Case) -> bool:
    """Return whether a response ended where the context does, before the limit that the client declared."""
    usage = usage_in(recorded)
    if usage is None or sum(usage) < CONTEXT_TOKENS or isinstance(case[1], str):
        return False
    limits = (case[1].get(name) for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"))
    return usage[1] < next(filter(None, limits), CONTEXT_TOKENS)


def pairs(holds: Callable[[dict[str, Any], str], bool]) -> pytest.MarkDecorator:
    """Return the parameters of a test: each version, and each case whose response `holds`."""
    found = [(each, name) for each in VERSIONS for name in CASES if holds(RESPONSES[each][name], name)]
    return pytest.mark.parametrize(("version", "name"), found)


def test_there_is_a_response_to_each_case() -> None:
    """The recordings have the cases that are in the tree: after a change of one, `make vllm` records again."""
    assert [set(CASES)] * len(VERSIONS) == [set(responses) for responses in RESPONSES.values()]


@pairs(lambda recorded, _: usage_in(recorded) is not None)
def test_the_router_reads_the_usage_that_it_reports(version: str, name: str) -> None:
    """From each response with usage the router reads that usage."""
    said = read(version, name)
    assert isinstance(said, Usage)
    assert usage_in(RESPONSES[version][name]) == (said.prompt_tokens, said.completion_tokens)


@pairs(lambda recorded, _: usage_in(recorded) is None)
def test_the_router_knows_refusals_for_length(version: str, name: str) -> None:
    """Of the responses without usage, the router takes for refusals for length those that are."""
    assert is_refused_for_length(RESPONSES[version][name]) == isinstance(read(version, name), Overflow)


@pairs(lambda recorded, name: usage_in(recorded) is not None and decided(CASES[name]).budget is not None)
def test_its_bounds_hold_before_anything_is_learned(version: str, name: str) -> None:
    """Prompt and output of a served request are within the bounds that a new router computes for it."""
    usage, budget = usage_in(RESPONSES[version][name]), decided(CASES[name]).budget
    assert usage is not None
    assert budget is not None
    assert usage[0] <= budget.prompt_bound * budget.sequences
    assert usage[1] <= max(budget.output_tokens, 1) * budget.sequences


@pairs(lambda recorded, name: is_refused_for_length(recorded) or is_cut(recorded, CASES[name]))
def test_what_does_not_fit_is_not_sent_there(version: str, name: str) -> None:
    """A request that vLLM refuses for its length, or whose output it cuts short, goes to the long pool at once."""
    assert "long" == decided(CASES[name]).pool.name, version


@pairs(lambda _, name: not any(each in name for each in NOT_EMULATED))
def test_the_emulator_responds_alike(version: str, name: str) -> None:
    """The emulator's status, tokens of the prompt, end of the output and refusal for length are vLLM's."""
    recorded, (path, _) = RESPONSES[version][name], CASES[name]

    async def ask() -> httpx.Response:
        settings = EmulatorSettings(
            model="m",
            max_model_len=CONTEXT_TOKENS,
            tokenizer=TokenizerName.DEEPSEEK,
            median_completion_tokens=5000,
            vllm_version=EMULATED[version],
        )
        emulator = Emulator(settings)
        await emulator.start()
        try:
            async with httpx.AsyncClient(base_url=emulator.url, timeout=30, verify=NO_AUTHORITIES) as client:
                headers = {"content-type": "application/json"}
                return await client.post(path, content=body_of(CASES[name]), headers=headers)
        finally:
            await emulator.stop()

    response = asyncio.run(ask())
    emulated = {"type": response.headers["content-type"].partition(";")[0], "body": response.text}
    assert recorded["status"] == response.status_code, response.text
    assert usage_in(recorded) == usage_in(emulated)
    if is_refused_for_length(recorded):
        assert json.loads(recorded["body"]) == response.json()
