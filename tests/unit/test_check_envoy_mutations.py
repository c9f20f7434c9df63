"""Whatever a gateway's files contain, the checker either reads it or says what is wrong with it."""

import json
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.errors import ConfigurationError
from extproc.gateways import report
from extproc.gateways.findings import Findings, find_traps
from extproc.gateways.inputs import read_gateways
from extproc.gateways.parsing.sources import read
from extproc.gateways.router import Router
from tests.envoy.harness.gateway import FILES

ROOT = FILES.parent
FOLDERS = {
    "envoy": "envoy/streamed.yaml",
    "istio": "deploy/istio/*.yaml",
    "istio with InferencePools": "deploy/istio/inference-pools/*.yaml",
    "envoy gateway": "deploy/envoy-gateway/**/*.yaml",
}
# Each of these is wrong in some places and right in others.
VALUES: list[Any] = [
    *(
        None,
        "",
        "x",
        "10s",
        0,
        -1,
        1.5,
        float("inf"),
        True,
        2**70,
        [],
        {},
        [1],
        ["x"],
        [None],
        [[]],
        {"a": 1},
        {"name": None},
    ),
    {"@type": 3},
    {"@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor"},
]


@cache
def plain(pattern: str) -> list[Any]:
    """Return the documents of some files as plain values, which must not be modified."""
    texts = [path.read_text("utf-8") for path in sorted(ROOT.glob(pattern))]
    return [json.loads(json.dumps(each)) for text in texts for each in read(text, "file.yaml")]


def steps(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to each value nested in another."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from steps(item, (*path, key))


def checked(documents: list[Any]) -> Findings | str:
    """Return the findings for some documents, or the reason why they cannot be read."""
    router = Router()
    try:
        values = [each for document in documents for each in read(json.dumps(document), "file.yaml")]
        gateways = read_gateways(values, router)
    except ConfigurationError as error:
        return str(error)
    return find_traps(gateways.gateways, router, gateways.unchecked)


@pytest.mark.parametrize("pattern", FOLDERS.values(), ids=FOLDERS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_every_document_is_read_or_rejected(pattern: str, data: st.DataObject) -> None:
    """With any value in any place, the result is a report or a sentence, never another error."""
    documents = deepcopy(plain(pattern))
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(list(steps(documents))))
        place = documents
        for step in path:
            place = place[step]
        place[last] = deepcopy(data.draw(st.sampled_from(VALUES)))  # a later place may be inside this value
    found = checked(documents)
    if isinstance(found, str):
        assert found
        return
    assert report.as_text(found)
    assert len(found.found) == len(json.loads(report.as_json(found))["found"])
    json.loads(report.as_sarif(found))


@pytest.mark.parametrize("field", ["request_header_mode", "response_trailer_mode"])
def test_an_infinite_number_is_rejected(field: str) -> None:
    """A number that no message can hold is said to be wrong."""
    documents = deepcopy(plain(FOLDERS["istio"]))
    patches = [each for document in documents for each in document["spec"].get("configPatches", ())]
    settings_ = next(
        each["patch"]["value"]["typed_config"] for each in patches if each["applyTo"] == "HTTP_FILTER"
    )
    settings_["processing_mode"][field] = float("inf")
    assert isinstance(checked(documents), str)
