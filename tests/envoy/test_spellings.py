"""The checker reads a configuration as Envoy does, however its values are spelled."""

import subprocess
from pathlib import Path

import pytest

from tests.envoy.harness.gateway import FILES, envoy_binary
from tests.traps.finding import found_in

STREAMED = (FILES / "streamed.yaml").read_text("utf-8")
# What our file has, and how others write the same.
SPELLINGS = [
    ("type: STRICT_DNS", "type: strict_dns"),
    ("lb_policy: LEAST_REQUEST", "lb_policy: Least_Request"),
    ("denominator: HUNDRED", "denominator: hundred"),
    ("request_header_mode: SEND", "request_header_mode: send"),
    ("connect_timeout: 1s", "connect_timeout: {seconds: 1}"),
    ("message_timeout: 0.5s", "message_timeout: {nanos: 500000000}"),
    ("timeout: 0s", "timeout: {}"),
    ("use_remote_address: true", "use_remote_address: {value: yes}"),
    ("max_request_headers_kb: 96", "max_request_headers_kb: {value: 96}"),
    ("failure_mode_allow: true", "failure_mode_allow: on"),
    ("disallow_all: true", 'disallow_all: "true"'),
    ("disable_immediate_response: true", "disable_immediate_response: Yes"),
    ("include_attempt_count_in_response: true", 'include_attempt_count_in_response: "True"'),
]


def respelled(text: str) -> str:
    """Return a configuration with the same content in the other spellings."""
    for ours, theirs in SPELLINGS:
        text = text.replace(ours, theirs)
    return text


def test_other_spellings_are_no_faults(tmp_path: Path) -> None:
    """Envoy accepts enums in lower case, YAML 1.1's booleans, and messages as mappings; so does the checker."""
    file = tmp_path / "envoy.yaml"
    file.write_text(respelled(STREAMED))
    command = [envoy_binary(), "--mode", "validate", "-c", str(file), "--log-level", "error"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (0, "") == (result.returncode, result.stderr)
    assert () == found_in(file.read_text())


@pytest.mark.parametrize(
    ("ours", "theirs", "trap"),
    [
        ("request_body_mode: STREAMED", "request_body_mode: none", "body-not-sent"),
        ("message_timeout: 0.5s", "message_timeout: {nanos: 200000000}", "message-timeout"),
        ("failure_mode_allow: true", "failure_mode_allow: no", "fail-closed"),
        ("connect_timeout: 1s", "connect_timeout: {seconds: 5}", "slow-connect"),
    ],
)
def test_traps_in_other_spellings_are_found(ours: str, theirs: str, trap: str) -> None:
    """A trap is one however it is spelled."""
    assert ours in STREAMED
    assert trap in {each.trap.name for each in found_in(STREAMED.replace(ours, theirs))}
