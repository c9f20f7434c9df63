"""Watching a configuration file: when a change is applied, and what happens to an invalid file."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from extproc.config.loading import parse
from extproc.config.schema import Configuration
from extproc.core.errors import ConfigurationError
from extproc.server.reload import Reloader
from extproc.telemetry.reloads import ReloadMetrics

GOOD, OTHER, BAD = "mode: enforce", "mode: shadow", "mode: on\ntenant_header: authorization"


class Followed:
    """A watched file, and the configurations that were applied; `looks` does what the reloader's thread does."""

    def __init__(self, folder: Path, text: str = GOOD) -> None:
        self.file = folder / "router.yaml"
        self.file.write_text(text)
        self.applied: list[Configuration] = []
        self.fails: Exception | None = None
        self.registry = CollectorRegistry()
        self.reloader = Reloader(self.file, parse(text), self._apply, ReloadMetrics(self.registry))
        self.looks()

    def looks(self, times: int = 2) -> None:
        """Check the file this many times."""
        for _ in range(times):
            self.reloader.look()

    def metrics(self) -> tuple[float | None, float | None, float | None]:
        """Return the numbers of applied and refused files, and whether the file's content is not in force."""
        value = self.registry.get_sample_value
        counts = [value("dualpool_config_reloads_total", {"outcome": each}) for each in ("applied", "refused")]
        return counts[0], counts[1], value("dualpool_config_file_not_in_force")

    def _apply(self, configuration: Configuration) -> None:
        if self.fails is not None:
            raise self.fails
        self.applied.append(configuration)


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    """Return a watched file whose content is in force."""
    return Followed(tmp_path)


def test_a_file_that_says_what_is_in_force_changes_nothing(followed: Followed) -> None:
    """Neither the first check nor a change of comments alone is a reload."""
    followed.file.write_text(f"# The same.\n{GOOD}")
    followed.looks()
    assert ([], (0, 0, 0)) == (followed.applied, followed.metrics())


def test_a_changed_file_is_taken_when_two_looks_saw_the_same(followed: Followed) -> None:
    """Content seen by only one check, such as a file that is still being written, is not applied."""
    followed.file.write_text("")
    followed.looks(1)
    followed.file.write_text(OTHER)
    followed.looks(1)
    assert [] == followed.applied
    followed.looks(1)
    assert ([parse(OTHER)], (1, 0, 0)) == (followed.applied, followed.metrics())
    followed.looks()
    assert 1 == len(followed.applied)


def test_asked_for_it_the_file_is_taken_at_once(followed: Followed) -> None:
    """On SIGHUP one check is enough."""
    followed.file.write_text(OTHER)
    followed.reloader.look(at_once=True)
    assert [parse(OTHER)] == followed.applied


def test_a_link_that_is_swapped_is_a_change(tmp_path: Path) -> None:
    """A Kubernetes ConfigMap: the file's path goes through a symlink to a folder, which is replaced."""
    for name, text in (("v1", GOOD), ("v2", OTHER)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "router.yaml").write_text(text)
    (tmp_path / "data").symlink_to("v1")
    followed = Followed(tmp_path / "v1")
    followed.reloader = Reloader(
        tmp_path / "data" / "router.yaml", parse(GOOD), followed._apply, ReloadMetrics(CollectorRegistry())
    )
    followed.looks()
    (tmp_path / "next").symlink_to("v2")
    (tmp_path / "next").rename(tmp_path / "data")
    followed.looks()
    assert [parse(OTHER)] == followed.applied


def spoil(file: Path) -> None:
    """Write an invalid configuration."""
    file.write_text(BAD)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (spoil, "mode: 'on' given; allowed: enforce, shadow, off"),
        (Path.unlink, "No such file"),
        (lambda file: file.write_bytes(b"\xff"), "can't decode byte 0xff"),
    ],
    ids=["bad", "missing", "no text"],
)
def test_a_bad_file_never_replaces_a_good_one(
    followed: Followed, damage: Callable[[Path], None], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Until it is fixed, it is counted, logged and reported once, with field and value."""
    damage(followed.file)
    with caplog.at_level(logging.ERROR, "dualpool"):
        followed.looks(5)
    assert ([], (0, 1, 1)) == (followed.applied, followed.metrics())
    (record,) = caplog.records
    assert said in record.getMessage()
    refused = followed.reloader.report()["refused"]
    assert isinstance(refused, dict)
    assert said in " ".join(refused["errors"])
    followed.file.write_text(GOOD)
    followed.looks()
    assert (None, (1, 1, 0)) == (followed.reloader.report()["refused"], followed.metrics())


@pytest.mark.parametrize("at_once", [False, True])
def test_a_file_that_became_empty_does_not_put_defaults_in_force(tmp_path: Path, *, at_once: bool) -> None:
    """A full disk leaves an empty file when it is rewritten; this holds however long it stays empty."""
    followed = Followed(tmp_path, OTHER)
    followed.file.write_text("\n")
    for _ in range(5):
        followed.reloader.look(at_once=at_once)
    refused = followed.reloader.report()["refused"]
    assert isinstance(refused, dict)
    assert ([], ("it is empty",)) == (followed.applied, tuple(refused["errors"]))
    followed.file.write_text(GOOD)
    followed.looks()
    assert [parse(GOOD)] == followed.applied


def test_all_faults_are_shown(followed: Followed) -> None:
    """Each fault of a bad file is a separate error."""
    spoil(followed.file)
    followed.looks()
    refused = followed.reloader.report()["refused"]
    assert isinstance(refused, dict)
    assert ["mode", "tenant_header"] == [each.partition(":")[0] for each in refused["errors"]]


def test_thousands_of_faults_are_no_more_than_a_line_takes(
    followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    """9,000 unknown settings are reported in 2 KB, in the log and on the admin
    page, with the number of those left out.
    """
    followed.file.write_text("".join(f"k{number}: 1\n" for number in range(9000)))
    with caplog.at_level(logging.ERROR, "dualpool"):
        followed.looks()
    refused = followed.reloader.report()["refused"]
    assert isinstance(refused, dict)
    (record,) = caplog.records
    assert refused["errors"] == record.__dict__["fields"]["errors"]
    assert "k0: no such setting" in refused["errors"][0]
    assert f"and {9000 - len(refused['errors']) + 1:,} more" == refused["errors"][-1]
    assert sum(map(len, refused["errors"])) <= 2000


def test_what_cannot_be_applied_is_refused(followed: Followed) -> None:
    """A fault that only shows when the file is applied, such as an
    unreadable certificate, counts like any other.
    """
    followed.fails = ConfigurationError("listen.tls.certificate_file: nothing there")
    followed.file.write_text(OTHER)
    followed.looks()
    assert (0, 1, 1) == followed.metrics()
    assert parse(GOOD) == followed.reloader.running


def test_what_a_busy_router_did_not_take_is_tried_again(followed: Followed) -> None:
    """If the event loop did not answer in time, the next checks try again."""
    followed.fails = TimeoutError()
    followed.file.write_text(OTHER)
    followed.looks()
    followed.fails = None
    followed.looks()
    assert ([parse(OTHER)], (1, 1, 0)) == (followed.applied, followed.metrics())


def test_what_waits_for_a_restart_is_said(followed: Followed, caplog: pytest.LogCaptureFixture) -> None:
    """A setting that is fixed at startup keeps its value; log and report name it, and a metric shows it."""
    followed.file.write_text(f"{OTHER}\nadmin: {{address: '127.0.0.1:1'}}")
    with caplog.at_level(logging.WARNING, "dualpool"):
        followed.looks()
    assert ["changed settings that need a restart: admin"] == [each.getMessage() for each in caplog.records]
    assert ("admin",) == followed.reloader.report()["needs_restart"]
    assert ([parse(OTHER)], (1, 0, 1)) == (followed.applied, followed.metrics())


def test_without_a_file_nothing_is_read(caplog: pytest.LogCaptureFixture) -> None:
    """A router that was started without a file says so when it is told to reload."""
    reloader = Reloader(None, parse(""), lambda _: None, ReloadMetrics(CollectorRegistry()))
    with caplog.at_level(logging.WARNING, "dualpool"):
        reloader.look(at_once=True)
    assert ["there is no configuration file to read again"] == [
        r.getMessage().split(":")[0] for r in caplog.records
    ]
