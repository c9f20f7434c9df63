"""Claims of the documents about tests, metrics and links."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text("utf-8")
RESULTS = (ROOT / "bench" / "results.md").read_text("utf-8")


def missing_of(text: str) -> list[str]:
    """Return the tests that a text names and that do not exist."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text)
    return [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).exists() or f"def {name}(" not in (ROOT / path).read_text("utf-8")
    ]


def test_every_test_that_security_names_exists() -> None:
    """Each threat names tests, and each of them exists."""
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    assert [] == missing_of(text)
    threats = [line for line in text.splitlines() if line.startswith("| **")]
    assert len(threats) >= 10
    assert [] == [line for line in threats if "::test_" not in line]


def test_every_fault_on_the_page_about_state_is_caused_in_a_test() -> None:
    """Each fault names the tests that cause it, and each of them exists."""
    faults = (ROOT / "docs" / "state.md").read_text("utf-8").partition("## Faults")[2]
    assert [] == missing_of(faults)
    rows = [line for line in faults.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 13
    assert [] == [line for line in rows if "::test_" not in line]


def test_each_of_the_ten_questions_is_one_query() -> None:
    """Each of the ten questions for whoever is on call has one query to copy."""
    questions = re.split(r"^### ", OPERATIONS.partition("## Traces")[0], flags=re.MULTILINE)[1:]
    assert [f"{number}." for number in range(1, 11)] == [question.split()[0] for question in questions]
    assert [1] * 10 == [question.count("```promql") for question in questions]


@pytest.mark.parametrize(
    "name",
    [
        "docs/operations.md",
        "docs/runbooks.md",
        "docs/faq.md",
        "deploy/monitoring/dashboard.yaml",
        "deploy/monitoring/rules.yaml",
    ],
)
def test_metrics_in_a_document_exist(name: str) -> None:
    """Every metric and recording rule that is named for a query exists."""
    known = set(
        re.findall(r"^\| `(dualpool_\w+)`", (ROOT / "docs" / "metrics.md").read_text("utf-8"), re.MULTILINE)
    )
    rules = set(re.findall(r"record: (\S+)", (ROOT / "deploy" / "monitoring" / "rules.yaml").read_text("utf-8")))
    named = set(re.findall(r"\bdualpool[_:][\w:]+", (ROOT / name).read_text("utf-8")))
    bare = {re.sub(r"_(bucket|count|sum)$", "", each) for each in named}
    assert set() == bare - known - rules


@pytest.mark.parametrize("name", ["Dockerfile", "compose/Dockerfile.pools"])
def test_images_have_a_python_with_which_all_tests_were_run(name: str) -> None:
    """CONTRIBUTING.md says which tests were run with which Python, and which of these the container has."""
    rows = re.findall(r"^\| (3\.\d+) \| (.+) \|$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE)
    [container] = [version for version, tests in rows if tests.startswith("all") and "of the container" in tests]
    images = re.findall(r"python:(3\.\d+)-", (ROOT / "deploy" / name).read_text("utf-8"))
    assert {container} == set(images)


@pytest.mark.parametrize(
    ("exchange", "sized"),
    [("released", "a request whose stream is released"), ("learned", "a request whose response")],
)
def test_the_sizing_and_the_readme_have_the_measured_cpu(exchange: str, sized: str) -> None:
    """The CPU of a request is the same, to two digits, in bench/results.md, docs/operations.md and README.md."""
    measured = re.search(rf"^\| {exchange} \| HTTP/1.1 \| [^|]*\| (\d+) \(", RESULTS, re.MULTILINE)
    planned_with = re.search(rf"^\| {sized}[^|]*\| (\d+) us \|", OPERATIONS, re.MULTILINE)
    row = re.search(r"^\| CPU of the router.*", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert measured is not None
    assert planned_with is not None
    assert row is not None
    two_digits_us = round(int(measured[1]), -1)
    assert two_digits_us == int(planned_with[1])
    assert f"| {two_digits_us / 1000:.2f} ms (" in row[0]


def test_the_admin_port_of_a_pod_is_forwarded_in_one_way() -> None:
    """Whoever follows one document after another finds its pages at localhost:9090, as without Kubernetes."""
    chart, manifests = ROOT / "deploy" / "helm" / "dualpool" / "templates", ROOT / "deploy" / "kubernetes"
    files = [*(ROOT / "docs").glob("*.md"), *chart.glob("*"), *manifests.glob("*.yaml")]
    texts = [each.read_text("utf-8") for each in files]
    ports = [port for text in texts for port in re.findall(r"port-forward -n .* ([\d:]+)\b", text)]
    assert {"9090:9091"} == set(ports)
    assert [] == [text for text in texts if "localhost:9091" in text]
