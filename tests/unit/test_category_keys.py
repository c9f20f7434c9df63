"""Keys of categories: a tenant's name, which a client chooses, is never the key of anything else."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.estimator import make_estimator
from extproc.core.estimator.codes import Script
from extproc.core.estimator.kinds import tenant_key
from extproc.core.estimator.output_lengths import DECLARED
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.text import TextKind
from extproc.core.facts import Api, RequestFacts
from extproc.core.usage import Usage

KINDS = [*(kind.value for kind in TextKind), *(script.name.lower() for script in Script)]
TEXTS = [
    b"Please tell me a story about the routers.",
    b"",
    b'{"a":[1,2]};' * 9,
    "ελληνικά".encode(),
    "日本語".encode(),
]
NAMES = st.one_of(
    st.text(max_size=20), st.sampled_from([*KINDS, "tenant:", "tenant:latin", DECLARED, f"{DECLARED}a"])
)


def key_of(kind: Literal["byteclass", "ema"], tenant: str, text: bytes) -> str:
    """Return the category of a request."""
    facts = RequestFacts(Api.CHAT, "m", text, messages=1)
    return make_estimator(EstimatorSettings(kind=kind)).estimate(facts, tenant).category.key


@pytest.mark.parametrize("kind", ["byteclass", "ema"])
@pytest.mark.parametrize("text", TEXTS)
def test_no_tenant_is_taken_for_a_kind_of_text(kind: Literal["byteclass", "ema"], text: bytes) -> None:
    """A request of a tenant named like the kind of its text has another category than one without a tenant."""
    alone = key_of(kind, "", text)
    assert alone in KINDS
    assert f"tenant:{alone}" == key_of(kind, alone, text)


@pytest.mark.parametrize("name", [*KINDS, DECLARED, f"{DECLARED}latin", "tenant:latin", "tenant:"])
def test_a_name_that_is_a_key_of_ours_is_marked(name: str) -> None:
    """Names of kinds, and whatever begins like a mark or holds our reserved character, are marked as tenants'."""
    assert f"tenant:{name}" == tenant_key(name)


@pytest.mark.parametrize("name", ["acme", "Latin", "latin-1-team", "declared", "a tenant: b", ""])
def test_other_names_are_their_own_keys(name: str) -> None:
    """So the state and the metrics show tenants by their names."""
    assert name == tenant_key(name)


@given(NAMES, NAMES)
def test_different_tenants_have_different_keys(one: str, other: str) -> None:
    """Marking a name never makes it equal to another one."""
    assert (one == other) == (tenant_key(one) == tenant_key(other))


@pytest.mark.parametrize("kind", ["byteclass", "ema"])
def test_a_tenant_named_like_a_kind_teaches_nobody_without_a_tenant(kind: Literal["byteclass", "ema"]) -> None:
    """Its long outputs are its own category's; requests of that kind without a tenant keep theirs."""
    estimator = make_estimator(EstimatorSettings(kind=kind))
    facts = RequestFacts(Api.CHAT, "m", TEXTS[0], messages=1)
    for turn in range(600):
        tenant, tokens = ("latin", 16_000) if turn % 5 == 0 else ("", 100)
        estimator.observe(estimator.estimate(facts, tenant), Usage(10, tokens))
    assert estimator.estimate(facts, "").output_tokens < 200
    keys = {row.category.key for row in estimator.state().categories if row.category.model}
    assert {"latin", "tenant:latin"} == keys
