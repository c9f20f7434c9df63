"""Watching a configuration file: when a change is applied, and what happens to an invalid file."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from extproc.config.loading import parse
from extproc.config.schema import Configuration
from extproc.core.errors import ConfigurationError
from extproc.server.reload import BUSY_LOOKS, REFUSED_LOOKS, Reloader
from extproc.telemetry.reloads import ReloadMetrics

GOOD, OTHER, BAD = "mode: enforce", "mode: shadow", "mode: on\ntenant_header: authorization"


class Watched:
    """A watched file, and the configurations that were applied; `looks` does what the reloader's thread does."""

    def __init__(self, folder: Path, text: str = GOOD) -> None:
        self.file = folder / "router.yaml"
        self.file.write_text(text)
        self.applied: list[Configuration] = []
        self.attempts = 0
        self.fails: Exception | None = None
        self.registry = CollectorRegistry()
        self.reloader = Reloader(self.file, parse(text), self._apply, ReloadMetrics(self.registry))
        self.check()

    def check(self, times: int = 2) -> None:
        """Check the file this many times."""
        for _ in range(times):
            self.reloader.look()

    def metrics(self) -> tuple[float | None, float | None, float | None]:
        """Return the numbers of applied and refused files, and whether the file's content is not in force."""
        value = self.registry.get_sample_value
        counts = [value("dualpool_config_reloads_total", {"outcome": each}) for each in ("applied", "refused")]
        return counts[0], counts[1], value("dualpool_config_file_not_in_force")

    def _apply(self, configuration: Configuration) -> None:
        self.attempts += 1
        if self.fails is not None:
            raise self.fails
        self.applied.append(configuration)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """Return a watched file whose content is in force."""
    return Watched(tmp_path)


def test_a_file_with_the_running_configuration_changes_nothing(watched: Watched) -> None:
    """Neither the first check nor a change of comments alone is a reload."""
    watched.file.write_text(f"# The same.\n{GOOD}")
    watched.check()
    assert ([], (0, 0, 0)) == (watched.applied, watched.metrics())


def test_a_changed_file_is_applied_when_two_checks_saw_the_same(watched: Watched) -> None:
    """Content seen by only one check, such as a file that is still being written, is not applied."""
    watched.file.write_text("")
    watched.check(1)
    watched.file.write_text(OTHER)
    watched.check(1)
    assert [] == watched.applied
    watched.check(1)
    assert ([parse(OTHER)], (1, 0, 0)) == (watched.applied, watched.metrics())
    watched.check()
    assert 1 == len(watched.applied)


def test_on_request_the_file_is_applied_at_once(watched: Watched) -> None:
    """On SIGHUP one check is enough."""
    watched.file.write_text(OTHER)
    watched.reloader.look(at_once=True)
    assert [parse(OTHER)] == watched.applied


def test_a_link_that_is_swapped_is_a_change(tmp_path: Path) -> None:
    """In a Kubernetes ConfigMap the file's path leads through a symlink to a folder, which is replaced."""
    for name, text in (("v1", GOOD), ("v2", OTHER)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "router.yaml").write_text(text)
    (tmp_path / "data").symlink_to("v1")
    watched = Watched(tmp_path / "v1")
    watched.reloader = Reloader(
        tmp_path / "data" / "router.yaml", parse(GOOD), watched._apply, ReloadMetrics(CollectorRegistry())
    )
    watched.check()
    (tmp_path / "next").symlink_to("v2")
    (tmp_path / "next").rename(tmp_path / "data")
    watched.check()
    assert [parse(OTHER)] == watched.applied


def spoil(file: Path) -> None:
    """Write an invalid configuration."""
    file.write_text(BAD)


def to_pipe(file: Path) -> None:
    """Replace a file by a pipe that nobody writes to."""
    file.unlink()
    os.mkfifo(file)


def to_folder(file: Path) -> None:
    """Replace a file by a folder."""
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (spoil, "mode: 'on' given; allowed: enforce, shadow, off"),
        (Path.unlink, "No such file"),
        (to_pipe, "it is a pipe now"),
        (to_folder, "Is a directory"),
        (lambda file: file.write_bytes(b"\xff"), "not UTF-8, which is needed: byte 0xff"),
    ],
    ids=["bad", "missing", "a pipe", "a folder", "no text"],
)
def test_a_bad_file_never_replaces_a_good_one(
    watched: Watched, damage: Callable[[Path], None], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Until it is fixed, it is counted, logged and reported once, with field and value."""
    damage(watched.file)
    with caplog.at_level(logging.ERROR, "dualpool"):
        watched.check(5)
    assert ([], (0, 1, 1)) == (watched.applied, watched.metrics())
    (record,) = caplog.records
    assert said in record.getMessage()
    refused = watched.reloader.report()["refused"]
    assert isinstance(refused, dict)
    assert said in " ".join(refused["errors"])
    if watched.file.is_dir():
        watched.file.rmdir()
    watched.file.unlink(missing_ok=True)
    watched.file.write_text(GOOD)
    watched.check()
    assert (None, (1, 1, 0)) == (watched.reloader.report()["refused"], watched.metrics())


@pytest.mark.parametrize("at_once", [False, True])
def test_a_file_that_became_empty_does_not_put_defaults_in_force(tmp_path: Path, *, at_once: bool) -> None:
    """Rewriting a file on a full disk leaves it empty; it is refused, however long it stays so."""
    watched = Watched(tmp_path, OTHER)
    watched.file.write_text("\n")
    for _ in range(5):
        watched.reloader.look(at_once=at_once)
    refused = watched.reloader.report()["refused"]
    assert isinstance(refused, dict)
    assert ([], ("it is empty",)) == (watched.applied, tuple(refused["errors"]))
    watched.file.write_text(GOOD)
    watched.check()
    assert [parse(GOOD)] == watched.applied


def test_all_faults_are_shown(watched: Watched) -> None:
    """Each fault of a bad file is a separate error."""
    spoil(watched.file)
    watched.check()
    refused = watched.reloader.report()["refused"]
    assert isinstance(refused, dict)
    assert ["mode", "tenant_header"] == [each.partition(":")[0] for each in refused["errors"]]


def test_thousands_of_faults_are_reported_in_one_short_line(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    """9,000 unknown settings are reported in 2 KB, in the log and on the admin
    page, with the number of those left out.
    """
    watched.file.write_text("".join(f"k{number}: 1\n" for number in range(9000)))
    with caplog.at_level(logging.ERROR, "dualpool"):
        watched.check()
    refused = watched.reloader.report()["refused"]
    assert isinstance(refused, dict)
    (record,) = caplog.records
    assert refused["errors"] == record.__dict__["fields"]["errors"]
    assert "k0: no such setting" in refused["errors"][0]
    assert f"and {9000 - len(refused['errors']) + 1:,} more" == refused["errors"][-1]
    assert sum(map(len, refused["errors"])) <= 2000


def test_a_configuration_that_cannot_be_applied_is_refused(watched: Watched) -> None:
    """A fault that only shows when the file is applied, such as an
    unreadable certificate, counts like any other.
    """
    watched.fails = ConfigurationError("listen.tls.certificate_file: nothing there")
    watched.file.write_text(OTHER)
    watched.check()
    assert (0, 1, 1) == watched.metrics()
    assert parse(GOOD) == watched.reloader.running


def test_a_configuration_whose_files_were_not_there_yet_is_applied_later(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    """A Secret may arrive after the ConfigMap that names its files. Until then each reason is reported once, and
    again if somebody asks.
    """
    watched.fails = ConfigurationError("listen.tls.certificate_file: nothing there")
    watched.file.write_text(OTHER)
    watched.check(3 * REFUSED_LOOKS)
    assert (0, 1, 1) == watched.metrics()
    watched.fails = ConfigurationError("listen.tls.private_key_file: nothing there")
    watched.check(2 * REFUSED_LOOKS)
    assert (0, 2, 1) == watched.metrics()
    watched.reloader.look(at_once=True)
    assert ((0, 3, 1), 3) == (watched.metrics(), len(caplog.records))
    watched.fails = None
    watched.check(REFUSED_LOOKS - 1)
    assert [] == watched.applied
    watched.check(3 * REFUSED_LOOKS)
    assert ([parse(OTHER)], (1, 3, 0)) == (watched.applied, watched.metrics())


def test_a_fault_of_the_file_itself_is_not_looked_for_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its content decides, which has not changed."""
    watched.file.write_text(BAD)
    watched.check()
    monkeypatch.setattr("extproc.server.reload.decode", lambda *_: parse(OTHER))
    watched.check(3 * REFUSED_LOOKS)
    assert ([], (0, 1, 1)) == (watched.applied, watched.metrics())


def test_a_changed_file_is_applied_while_another_waits_to_be_tried_again(watched: Watched) -> None:
    """Two looks are enough for it, as ever, and what waited is forgotten."""
    watched.fails = ConfigurationError("listen.tls.certificate_file: nothing there")
    watched.file.write_text(OTHER)
    watched.check()
    watched.fails = None
    watched.file.write_text(f"{GOOD}\ntenant_header: x-tenant")
    watched.check()
    watched.check(3 * REFUSED_LOOKS)
    assert [parse(f"{GOOD}\ntenant_header: x-tenant")] == watched.applied


def test_a_configuration_that_a_busy_router_did_not_apply_is_retried(watched: Watched) -> None:
    """If the event loop did not answer in time, the next checks try again."""
    watched.fails = TimeoutError()
    watched.file.write_text(OTHER)
    watched.check()
    watched.fails = None
    watched.check()
    assert ([parse(OTHER)], (1, 1, 0)) == (watched.applied, watched.metrics())


def test_a_configuration_that_met_an_exception_is_retried(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever kept it from being applied, such as a lack of threads, it is reported once, with where it happened,
    and tried again, soon and then now and then; so is another cause that follows.
    """
    watched.fails = RuntimeError("can't start new thread")
    watched.file.write_text(OTHER)
    watched.check(2 + BUSY_LOOKS + 2 * REFUSED_LOOKS)
    assert 4 == watched.attempts
    assert (0, 1, 1) == watched.metrics()
    assert "exception in the router: can't start new thread" in str(watched.reloader.report()["refused"])
    assert [(RuntimeError, watched.fails)] == [each.exc_info[:2] for each in caplog.records if each.exc_info]
    assert 1 == len(caplog.records)
    watched.fails = MemoryError()
    watched.check(REFUSED_LOOKS)
    assert "exception in the router: MemoryError" in str(watched.reloader.report()["refused"])
    assert 2 == len(caplog.records)
    watched.fails = None
    watched.check(REFUSED_LOOKS)
    assert ([parse(OTHER)], (1, 2, 0)) == (watched.applied, watched.metrics())


def test_settings_that_wait_for_a_restart_are_reported(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    """A setting that is fixed at startup keeps its value; log and report name it, and a metric shows it."""
    watched.file.write_text(f"{OTHER}\nadmin: {{address: '127.0.0.1:1'}}")
    with caplog.at_level(logging.WARNING, "dualpool"):
        watched.check()
    assert ["changed settings that need a restart: admin"] == [each.getMessage() for each in caplog.records]
    assert ("admin",) == watched.reloader.report()["needs_restart"]
    assert ([parse(OTHER)], (1, 0, 1)) == (watched.applied, watched.metrics())


def test_without_a_file_nothing_is_read(caplog: pytest.LogCaptureFixture) -> None:
    """A router that was started without a file says so when it is told to reload."""
    reloader = Reloader(None, parse(""), lambda _: None, ReloadMetrics(CollectorRegistry()))
    with caplog.at_level(logging.WARNING, "dualpool"):
        reloader.look(at_once=True)
    assert ["there is no configuration file to reload"] == [r.getMessage().split(":")[0] for r in caplog.records]


def test_a_pipe_is_not_followed(tmp_path: Path) -> None:
    """A configuration from a shell's <(...) stays in force: read again, the pipe would be empty, or block."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    metrics = ReloadMetrics(CollectorRegistry())
    reloader = Reloader(pipe, parse("mode: shadow"), lambda _: None, metrics)
    for at_once in (False, False, True):
        reloader.look(at_once=at_once)
    assert (None, None) == (reloader.report()["file"], reloader.report()["refused"])
