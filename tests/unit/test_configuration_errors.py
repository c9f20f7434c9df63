"""How a wrong configuration is reported: all faults, each with what is allowed, and nothing secret."""

from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from msgspec import Meta

from extproc.config.loading import as_json, load, parse
from extproc.config.schema import Configuration
from extproc.config.typed import dataclass_in, kind_and_range, settings_of
from extproc.core.errors import ConfigurationError


def test_a_fault_is_not_blamed_on_the_settings_default() -> None:
    """The default that replaces a faulty setting is not compared with other settings."""
    with pytest.raises(ConfigurationError) as refused:
        parse("headers: {pool: 5, reason: x-token-budget-pool}")
    assert ("headers.pool: 5 given; allowed: text",) == refused.value.sentences


def test_faulty_servers_are_not_blamed_on_spill_over() -> None:
    """Pools whose servers are misconfigured are not reported as pools without servers."""
    pools = (
        "{name: a, max_budget_tokens: 1, endpoints: {urls: [x]}}, {name: b, max_budget_tokens: 2, endpoints: 1}"
    )
    with pytest.raises(ConfigurationError) as refused:
        parse(f"pools: [{pools}]\nspill: {{enabled: true}}")
    assert ["pools[0].endpoints.urls[0]", "pools[1].endpoints"] == [
        sentence.partition(": ")[0] for sentence in refused.value.sentences
    ]


def test_a_file_in_another_encoding_is_told_that_utf_8_is_needed(tmp_path: Path) -> None:
    """The error names the line, and the encoding that is needed."""
    file = tmp_path / "c.yaml"
    file.write_bytes("mode: shadow\ntenant_header: x-länge\n".encode("latin-1"))
    with pytest.raises(ConfigurationError) as refused:
        load(file)
    assert ("not UTF-8, which is needed: byte 0xe4 in line 2",) == refused.value.sentences
    file.write_text("mode: shadow\n", "utf-16")
    with pytest.raises(ConfigurationError, match="not UTF-8, which is needed: byte 0xff in line 1"):
        load(file)


def texts_of(dataclass: type) -> list[tuple[str, object]]:
    """Return all text settings with a constraint, in a dataclass and in those nested in it."""
    found: list[tuple[str, object]] = []
    for name, wanted in settings_of(dataclass).items():
        inner = dataclass_in(get_args(wanted)[0]) if get_origin(wanted) is tuple else dataclass_in(wanted)
        if inner is not None:
            found += [(f"{name}.{below}", each) for below, each in texts_of(inner)]
        elif any(meta.pattern or meta.min_length for meta in metas_in(wanted)):
            found.append((name, wanted))
    return found


def metas_in(wanted: Any) -> list[Meta]:
    """Return the constraints of a type, including those of the items of a tuple."""
    below = [meta for part in get_args(wanted) for meta in metas_in(part)]
    return [*below, *(arg for arg in get_args(wanted) if isinstance(arg, Meta))]


@pytest.mark.parametrize(("name", "wanted"), texts_of(Configuration))
def test_the_allowed_form_of_a_text_is_named(name: str, wanted: object) -> None:
    """An error about the form of a text says more than that text is allowed."""
    assert "text" != kind_and_range(wanted)[1] != "", name


@pytest.mark.parametrize(
    "text",
    [
        "state: {store: {url: 'redis://u:hunter2@h:99999'}}",
        "state: {store: {url: 'redis://u:hunter2@h'}}",
        "state: {store: {url: 'redis://h:6379/0?password=hunter2'}}",
        "state: {store: {url: 'http://h?password=hunter2'}}",
        "state: {store: {url: 'redis://h/hunter2?password=hunter2'}}",
        "pools: [{name: a, max_budget_tokens: 1, endpoints: {urls: ['http://u:hunter2@h']}}]",
        "pools: [{name: a, max_budget_tokens: 1, endpoints: {dns: 'http://u:hunter2@h'}}]",
        "traces: {endpoint: 'http://u:hunter2@h:4318/v1/traces'}",
        "listen: {address: ['http://u:hunter2@h']}",
    ],
)
def test_a_password_in_a_url_is_not_in_the_error(text: str) -> None:
    """The error is logged and shown on /config."""
    with pytest.raises(ConfigurationError) as refused:
        parse(text)
    assert "hunter2" not in " ".join(refused.value.sentences)


@pytest.mark.parametrize(
    "text",
    [
        "mode: " + "x" * 100_000,
        "x" * 100_000 + ": 1",
        "\n".join(f"setting_{n}: {n}" for n in range(1_000)),
        "pools: [" + ", ".join(f"{{name: '{n}!', max_budget_tokens: {-n}}}" for n in range(1_000)) + "]",
        "pools: [" + ", ".join("{name: same, max_budget_tokens: 1}" for _ in range(1_000)) + "]",
        "tenant_header: " + "é" * 50_000,
        "drain_s: [0x" + "f" * 50_000 + "]",
        "drain_s: {0x" + "f" * 50_000 + ": 1}",
        "{? !!int '" + "9" * 4_000 + "' : 1}",
        "log_level: [" + "[" * 20 + "x" + "]" * 20 + "]",
        "'" + "x" * 50_000,
    ],
)
def test_an_error_prints_at_most_2_kb(text: str, tmp_path: Path) -> None:
    """However many and long the faults are: values are shortened, and the last faults are only counted."""
    file = tmp_path / "dualpool.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        load(file)
    assert len(f"dualpool serve: {refused.value}".encode()) <= 2_048
    assert str(refused.value).startswith(f"configuration file {file}: ")


def test_an_error_is_plain_text() -> None:
    """Control characters and line breaks within a sentence are not printed."""
    with pytest.raises(ConfigurationError) as refused:
        parse(r'{"red\e[31m\n": 1}')
    assert str(refused.value).startswith("red [31m : no such setting")


def test_secrets_are_not_shown() -> None:
    """The path of the private key is not on the admin page."""
    shown = as_json(parse("listen: {tls: {certificate_file: c.pem, private_key_file: /secret/key.pem}}"))
    assert b"c.pem" in shown
    assert b"/secret" not in shown
