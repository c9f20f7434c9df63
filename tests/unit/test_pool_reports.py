"""Reports from servers: their parsing, and the handling of nonsensical ones."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.placing.fleet import ANY_OTHER
from extproc.pools.reports import LoadReport, ModelReport, ReportNotUnderstood, parse_load, parse_models

VLLM = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 7.0
vllm:num_requests_running{engine="1",model_name="m"} 5.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 3.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{engine="0",model_name="m"} 2.0
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",num_gpu_blocks="1000"} 1.0
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="1",num_gpu_blocks="1000"} 1.0
"""
SGLANG = b"""\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="m"} 162.0
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{model_name="m"} 2826.0
# TYPE sglang:token_usage gauge
sglang:token_usage{model_name="m"} 0.28
sglang:max_total_num_tokens{model_name="m"} 500000.0
"""


@pytest.mark.parametrize(
    ("page", "load"),
    [(VLLM, LoadReport(3, 12, 0.75, 2, 32_000)), (SGLANG, LoadReport(2826, 162, 0.28, 0, 500_000))],
)
def test_engines_of_a_server_are_summed_and_the_fullest_counts(page: bytes, load: LoadReport) -> None:
    """Requests of all engines are added up; the fullest KV cache counts,
    since it is the one that causes preemptions.
    """
    assert load == parse_load(page)


@pytest.mark.parametrize("value", ["NaN", "-1", "+Inf"])
def test_an_invalid_number_of_requests_is_ignored(value: str) -> None:
    """An invalid gauge is dropped; without it, no load can be read."""
    page = VLLM.replace(b'3.0\nvllm:num_requests_waiting{engine="1",model_name="m"} 0.0', f"{value}".encode())
    with pytest.raises(ReportNotUnderstood, match="do not report how many requests wait"):
        parse_load(page)


def test_models_with_their_parents_and_contexts() -> None:
    """Servers list adapters with their base as parent, whose context they
    have, and each model with its own context.
    """
    page = {
        "object": "list",
        "data": [
            {"id": "base", "root": "/models/base", "parent": None, "max_model_len": 8192},
            {"id": "sql", "root": "/adapters/sql", "parent": "base", "max_model_len": None},
            {"id": "x" * 1_000, "parent": None},
        ],
    }
    assert (ModelReport("base", "", 8192), ModelReport("sql", "base", 8192)) == parse_models(
        json.dumps(page).encode()
    ).models


def test_sglang_accepts_every_name_and_no_full_context() -> None:
    """It serves names that it does not list, and refuses a sequence that fills the context to its last token."""
    entry = {"id": "qwen", "root": "/models/qwen", "max_model_len": 8192}
    for owner, expected in (
        ("sglang", (ModelReport("qwen", "", 8191), ModelReport(ANY_OTHER))),
        ("vllm", (ModelReport("qwen", "", 8192),)),
    ):
        page = json.dumps({"data": [entry | {"owned_by": owner}]}).encode()
        assert expected == parse_models(page).models


def test_names_of_the_same_weights_are_one_model() -> None:
    """Later names in --served-model-name have the first one as their base; without weights there is no base."""
    listed = [("m", "/w"), ("large", "/w"), ("m", "/w"), ("other", "/o"), ("none", ""), ("no-one", ""), ("odd", 5)]
    entries = [{"id": name, "root": root, "parent": None} for name, root in listed]
    adapter = {"id": "sql", "root": "/a", "parent": "m"}
    found = parse_models(json.dumps({"data": [*entries, adapter, adapter | {"id": "sql-2"}]}).encode()).models
    assert {"large": "m", "sql": "m", "sql-2": "m"} == {each.name: each.parent for each in found if each.parent}


@pytest.mark.parametrize("length", ["8192", 0, -1, 8192.5, True, [], None])
def test_an_odd_entry_does_not_affect_the_others(length: object) -> None:
    """An invalid length is ignored, an entry without a name is skipped, and the rest of the list is read."""
    odd = {"id": "odd", "parent": {"id": "base"}, "root": 5, "max_model_len": length}
    page = {"data": [odd, {"id": None}, {"id": 7}, {}, {"id": "base", "max_model_len": 8192}]}
    assert (ModelReport("odd"), ModelReport("base", "", 8192)) == parse_models(json.dumps(page).encode()).models


def test_an_adapter_without_a_valid_length_has_that_of_its_base() -> None:
    """It is served by the same weights, whatever it reports."""
    page = {"data": [{"id": "base", "max_model_len": 8192}, {"id": "sql", "parent": "base", "max_model_len": -1}]}
    assert ModelReport("sql", "base", 8192) == parse_models(json.dumps(page).encode()).models[1]


def test_a_model_that_is_listed_twice_is_returned_twice() -> None:
    """The caller takes the smaller of the two lengths."""
    page = {"data": [{"id": "m", "max_model_len": 5}, {"id": "m", "max_model_len": 9}]}
    assert (ModelReport("m", "", 5), ModelReport("m", "", 9)) == parse_models(json.dumps(page).encode()).models


def test_of_thousands_of_models_the_first_are_read_and_all_are_counted() -> None:
    """The number of listed models is reported with them, so that the router can say that some are unknown."""
    found = parse_models(json.dumps({"data": [{"id": f"a{n}"} for n in range(5_000)]}).encode())
    assert (1_000, 5_000) == (len(found.models), found.listed)


def test_ranks_of_one_engine_count_once_and_rows_by_priority_are_not_added() -> None:
    """All ranks of an SGLang engine report the same; rows by priority are parts of the row without one."""
    rows = ['tp_rank="0"', 'tp_rank="1"', 'pp_rank="1",tp_rank="0"']
    page = "".join(
        f'sglang:num_queue_reqs{{dp_rank="{engine}",priority="{priority}",{ranks}}} {value}\n'
        for engine, total in (("0", 6), ("1", 3))
        for ranks in rows
        for priority, value in (("", total), ("0", 2), ("9", total - 2))
    )
    page += page.replace("num_queue_reqs", "num_running_reqs")
    page += "".join(f"sglang:max_total_num_tokens{{{ranks}}} 1000\n" for ranks in rows)
    assert LoadReport(9, 9, 0.0, 0, 1_000) == parse_load(page.encode())


def test_an_enormous_count_stays_finite() -> None:
    """However many requests a server claims to have, the sum is finite."""
    page = VLLM.replace(b"3.0", b"1e308").replace(b"0.0", b"1e308")
    assert 10**12 == parse_load(page).waiting


def test_a_page_of_thousands_of_lines_about_one_server_is_not_read() -> None:
    """Parsing it would take time away from decisions."""
    with pytest.raises(ReportNotUnderstood, match="at most 1000"):
        parse_load(b"\n".join([b"vllm:num_requests_waiting 3"] * 2_000))


def test_a_line_that_no_server_writes_is_not_read() -> None:
    """The parser copies the rest of a line for each label, so a megabyte of labels would take many seconds."""
    labels = ",".join(f'a{number}=""' for number in range(1_000))
    said = f"vllm:num_requests_waiting{{{labels}}} 3\nvllm:num_requests_running 5\n"
    with pytest.raises(ReportNotUnderstood, match="do not report"):
        parse_load(said.encode())
    report = parse_load(f"{said}vllm:num_requests_waiting 2\n".encode())
    assert (2, 5) == (report.waiting, report.running)


LINES = st.sampled_from([line for line in VLLM.decode().splitlines() if not line.startswith("#")])


@given(
    st.binary(max_size=300)
    | st.just(VLLM).flatmap(lambda page: st.binary(max_size=20).map(page.__add__))
    | st.builds(lambda line, at, text: (line[: at % len(line)] + text).encode(), LINES, st.integers(0), st.text())
)
def test_any_bytes_raise_no_other_error(page: bytes) -> None:
    """Any bytes are either a report or ReportNotUnderstood."""
    for parse in (parse_models, parse_load):
        with suppress(ReportNotUnderstood):
            parse(page)


def test_all_names_of_the_same_weights_share_the_prices_of_the_first() -> None:
    """However many names a server has for one model, only the first has prices of its own."""
    names = [{"id": name, "root": "/models/qwen", "parent": None} for name in ("qwen", "large", "default")]
    found = parse_models(json.dumps({"data": names}).encode()).models
    assert [("qwen", ""), ("large", "qwen"), ("default", "qwen")] == [(each.name, each.parent) for each in found]
