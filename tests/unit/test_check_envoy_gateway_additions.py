"""`dualpool check envoy` on what Envoy Gateway's policies put behind the router: programs and compressors."""

from typing import Final

import pytest

from extproc.gateways.inputs import read_gateways
from extproc.gateways.parsing.sources import read
from extproc.gateways.router import Router
from tests.unit.test_check_envoy_gateway_order import position, proxied
from tests.unit.test_check_envoy_manifests import DEPLOYED, ROOT
from tests.unit.test_check_envoy_policies import EXTENSION, traffic, traps

AFTER: Final = "compressor-after"
PROGRAMS: Final = ("wasm: [{name: a}, {}]", "dynamicModule: [{name: a}, {name: a}]")
PROCESSOR: Final = "  extProc:\n    - backendRefs: [{name: dualpool, port: 9002}]"
SHORT: Final = "kind: HTTPRoute, name: llm-short"
VERY_LARGE: Final = "kind: HTTPRoute, name: llm-very-large-body"


def unchecked(*more: str, programs: str = "") -> list[str]:
    """Return what is not checked of our manifests with these programs in the router's policy, and more objects."""
    paths = [path for pattern in DEPLOYED["envoy gateway"] for path in sorted(ROOT.glob(pattern))]
    texts = [path.read_text("utf-8").replace(PROCESSOR, f"  {programs}\n{PROCESSOR}") for path in paths]
    documents = [each for text in [*texts, *more] for each in read(text, "file.yaml")]
    return list(read_gateways(documents, Router()).unchecked)


@pytest.mark.parametrize("programs", PROGRAMS)
def test_programs_of_the_router_s_policy(programs: str) -> None:
    """They come after the router's filter, and what they do there is said not to be checked, of each."""
    said = [each for each in unchecked(programs=programs) if "what the program of the filter" in each]
    assert len(said) == len(set(programs.split("{"))) - 1 == 2
    assert all("does after the router's is not in the input" in each for each in said)


def test_programs_before_the_router() -> None:
    """An EnvoyProxy may put them before, where they change nothing that the router has decided."""
    assert unchecked(*proxied(position("wasm", "before", "ext_proc")), programs=PROGRAMS[0]) == unchecked()


def test_programs_of_other_routes() -> None:
    """A policy of a route on which the router is not asked does not count."""
    assert unchecked(EXTENSION % (VERY_LARGE, PROGRAMS[0])) == unchecked()


@pytest.mark.parametrize("field", ["compression", "compressor"])
@pytest.mark.parametrize(
    ("target", "order", "found"),
    [
        (SHORT, "logging: {}", True),
        (SHORT, position("compressor", "before", "ext_proc"), False),
        (VERY_LARGE, "logging: {}", False),
    ],
)
def test_compressors(field: str, target: str, order: str, found: bool) -> None:  # noqa: FBT001
    """A policy's compressors come after the router's filter, unless an EnvoyProxy says otherwise."""
    policy = traffic(target, f"{field}: [{{type: Brotli}}, {{type: Gzip, gzip: {{}}}}]")
    assert found == (AFTER in traps(policy, *proxied(order), first=True))


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ("compressor: [{type: Gzip}]", False),
        ("compressor: [{type: Gzip, brotli: {}}]", False),
        ("compressor: [{type: Gzip, gzip: }]", False),
        ("compressor: [{type: Gzip}]\n  compression: [{type: Gzip}]", False),
        ("compressor: []\n  compression: [{type: Gzip}]", True),
    ],
)
def test_compressors_without_settings(settings: str, found: bool) -> None:  # noqa: FBT001
    """Envoy Gateway leaves them out, and what the older field says besides; that one needs no settings."""
    assert found == (AFTER in traps(traffic(SHORT, settings), first=True))
