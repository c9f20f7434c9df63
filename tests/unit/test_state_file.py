"""The file of learned state: always complete, never overwritten if it is unusable, never a reason to exit."""

import asyncio
import errno
import logging
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.protocol import LearnedState
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.terms import Terms
from extproc.state.file import StateFile, read_state, write_atomically
from extproc.state.frame import framed, unframed
from extproc.state.keeper import Saver, copied
from extproc.state.pb import state_pb2
from extproc.state.snapshot import from_message, to_message
from tests.unit.byteclass_lessons import teach

LATER = b"\xa2\x38\x05later"


def refuse(state: LearnedState) -> None:
    """Fail: nothing should be loaded."""
    raise AssertionError(state.estimator_kind)


def taught(responses: int = 20, seed: int = 0) -> ByteClassEstimator:
    """Return an estimator that has learned something."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, responses, seed=seed)
    return estimator


class Outcomes:
    """Records the outcomes of saving."""

    def __init__(self) -> None:
        self.saved: list[bool] = []

    def state_saved(self, *, done: bool) -> None:
        """Record it."""
        self.saved.append(done)

    def state_exchanged(self, *, done: bool, replicas: int) -> None:
        """Ignore: nothing is shared here."""


def saver(path: Path, estimator: ByteClassEstimator) -> tuple[Saver, Outcomes]:
    """Return a saver, and the record of its outcomes."""

    async def ask(function: Any) -> Any:
        return function()

    outcomes = Outcomes()
    terms = Terms.of(EstimatorSettings())
    return Saver(StateFile(path), 1.0, lambda: estimator, ask, outcomes, terms=terms), outcomes


def test_the_estimator_is_only_touched_where_requests_are_decided() -> None:
    """Even what parts its state has, which a reload may change, is asked there, and each part by itself."""
    estimator, asked = taught(), []
    deciding = False

    def current() -> ByteClassEstimator:
        assert deciding
        return estimator

    async def ask(function: Any) -> Any:
        nonlocal deciding
        deciding = True
        asked.append(function())
        deciding = False
        return asked[-1]

    assert estimator.state() == asyncio.run(copied(current, ask))
    assert 1 + len(estimator.parts()) == len(asked)


def test_a_saved_state_is_loaded(tmp_path: Path) -> None:
    """A new estimator starts with everything that the old one had learned."""
    old, new = taught(), ByteClassEstimator(EstimatorSettings())
    saver(tmp_path / "state", old)[0].save(old.state())
    assert saver(tmp_path / "state", new)[0].load()
    assert old.state() == new.state()
    assert ["state"] == names_in(tmp_path)


def test_a_symbolic_link_to_the_file_stays(tmp_path: Path) -> None:
    """The file that it names is replaced, on the disk that was chosen for it, even if it is not there yet."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "disk" / "state")
    for responses in (20, 30):
        estimator = taught(responses)
        saver(tmp_path / "state", estimator)[0].save(estimator.state())
        assert saver(tmp_path / "disk" / "state", estimator)[0].load()
        assert responses == estimator.state().models[0].observations
    assert (tmp_path / "state").is_symlink()
    assert ["state"] == names_in(tmp_path / "disk")


def test_a_symbolic_link_to_an_unusable_file_stays(tmp_path: Path) -> None:
    """The file that it names is set aside where it is, and the next one is written to the same disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "state").write_bytes(b"damaged")
    (tmp_path / "state").symlink_to(tmp_path / "disk" / "state")
    keeper, outcomes = saver(tmp_path / "state", taught())
    assert not keeper.load()
    assert ["state.unusable-1"] == names_in(tmp_path / "disk")
    keeper.save(taught().state())
    assert [True] == outcomes.saved
    assert {"state", "state.unusable-1"} == set(names_in(tmp_path / "disk"))
    assert {"state", "disk"} == set(names_in(tmp_path))
    assert (tmp_path / "state").is_symlink()


def test_a_missing_file_is_not_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """On the first start there is no file, and nothing is logged."""
    assert not StateFile(tmp_path / "state").load(lambda _: None)
    assert "" == caplog.text


def test_a_file_cut_at_any_length_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """However much is missing, the file is not loaded and not lost, and one log line says where it is now."""
    small = LearnedState("byteclass")
    whole = framed(to_message(small).SerializeToString())
    path = tmp_path / "state"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        caplog.clear()
        assert not StateFile(path).load(refuse)
        assert 1 == len(caplog.records)
        aside = tmp_path / f"state.unusable-{length + 1}"
        assert aside.read_bytes() == whole[:length]
        assert str(aside) == caplog.records[0].fields["aside"]  # type: ignore[attr-defined]
        assert not path.exists()


def test_a_large_file_cut_at_any_length_is_refused() -> None:
    """The digest detects truncation and changed bytes of a real state, at all places that are tried."""
    whole = framed(to_message(taught().state()).SerializeToString())
    for length in range(0, len(whole), 97):
        with pytest.raises(ConfigurationError):
            unframed(whole[:length])
        with pytest.raises(ConfigurationError):
            unframed(whole[:length] + bytes([whole[length] ^ 1]) + whole[length + 1 :])
    assert unframed(whole)


@pytest.mark.parametrize("foreign", ["ema", "features", "later version"])
def test_a_state_that_the_router_cannot_use_is_set_aside(foreign: str, tmp_path: Path) -> None:
    """A state of another estimator, of other features or of a later version may be needed again."""
    message = to_message(taught().state())
    if foreign == "ema":
        message.estimator_kind = "ema"
    elif foreign == "features":
        message.features[0] = "another"
    else:
        message.version = 99
    path = tmp_path / "state"
    path.write_bytes(framed(message.SerializeToString()))
    estimator = ByteClassEstimator(EstimatorSettings())
    keeper, outcomes = saver(path, estimator)
    assert not keeper.load()
    assert ["state.unusable-1"] == names_in(tmp_path)
    keeper.save(taught().state())
    assert [True] == outcomes.saved
    assert {"state", "state.unusable-1"} == set(names_in(tmp_path))


def test_another_kind_of_estimator_sets_aside_the_file_of_the_former_one(tmp_path: Path) -> None:
    """A reload may change the kind: what was learned in months must not be
    replaced by what was learned in a minute.
    """
    path = tmp_path / "state"
    learned = taught().state()
    message = to_message(learned, None)
    message.MergeFromString(LATER)
    write_atomically(path, framed(message.SerializeToString()))
    for file in (StateFile(path), StateFile(path)):
        file.load(lambda _: None)
        file.save(LearnedState("ema"))
        file.save(LearnedState("ema"))
    assert ["state", "state.unusable-1"] == names_in(tmp_path)
    assert learned == from_message(read_state(tmp_path / "state.unusable-1"))
    assert "ema" == read_state(path).estimator_kind
    assert LATER not in read_state(path).SerializeToString()


def test_a_file_that_was_deleted_is_saved_again(tmp_path: Path) -> None:
    """If the file was deleted, there is nothing to set aside first."""
    file = StateFile(tmp_path / "state")
    file.save(taught().state())
    file.path.unlink()
    file.save(LearnedState("ema"))
    assert "ema" == read_state(file.path).estimator_kind


def test_a_file_that_cannot_be_set_aside_is_never_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a read-only directory, a file that is not a state stays, even if the directory becomes writable later."""
    path = tmp_path / "state"
    path.write_bytes(b"somebody else's")

    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("os.rename", refused)
    keeper, outcomes = saver(path, ByteClassEstimator(EstimatorSettings()))
    assert not keeper.load()
    monkeypatch.undo()
    keeper.save(taught().state())
    assert [False] == outcomes.saved
    assert b"somebody else's" == path.read_bytes()
    assert "cannot be set aside" in caplog.records[-1].fields["cause"]  # type: ignore[attr-defined]


def test_a_directory_in_place_of_the_file_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that cannot be read is not replaced either."""
    path = tmp_path / "state"
    path.mkdir()
    file = StateFile(path)
    assert not file.load(refuse)
    with pytest.raises(OSError, match="could not be read"):
        file.save(LearnedState("ema"))
    assert "nothing will be saved" in caplog.text


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a device"])
def test_only_a_regular_file_is_read_renamed_or_replaced(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A pipe does not delay the start until somebody writes to it, and /dev/null stays what it is."""
    path = tmp_path / "state"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path = _device(tmp_path)
        if kind == "link to a device":
            (tmp_path / "link").symlink_to(path)
            path = tmp_path / "link"
    before, estimator = path.lstat(), taught()
    keeper, outcomes = saver(path, estimator)
    assert not keeper.load()
    keeper.save(estimator.state())
    with pytest.raises(OSError, match="not a regular file"):
        write_atomically(path, b"state")
    assert (before.st_ino, before.st_mode) == (path.lstat().st_ino, path.lstat().st_mode)
    assert [False] == outcomes.saved
    assert 1 == caplog.text.count("nothing will be saved")


def test_temporary_files_of_killed_processes_are_removed_at_the_start(tmp_path: Path) -> None:
    """A process that is killed while it writes leaves one behind, under a number; other files stay."""
    (tmp_path / "link").symlink_to(tmp_path / "state")
    for name in (".state.1", ".state.4711", ".state.1.7", ".state-0.1", ".state.old", "state.1"):
        (tmp_path / name).write_bytes(b"part of a state")
        os.utime(tmp_path / name, (0, 0))
    assert not StateFile(tmp_path / "link").load(refuse)
    assert {"link", ".state.1.7", ".state-0.1", ".state.old", "state.1"} == set(names_in(tmp_path))


def test_a_pod_that_starts_does_not_disturb_the_last_save_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a shared volume both processes may have the same number: each file is complete, the last one stays."""
    path, sync, started = tmp_path / "state", os.fsync, list[bool]()
    learned, larger = taught().state(), taught(200).state()

    def meanwhile(descriptor: int) -> None:
        sync(descriptor)
        if not started:
            started.append(True)
            other = StateFile(path)
            other.load(refuse)
            other.save(larger)
            assert larger == from_message(read_state(path))

    monkeypatch.setattr(os, "fsync", meanwhile)
    StateFile(path).save(learned)
    assert learned == from_message(read_state(path))
    assert ["state"] == names_in(tmp_path)


def test_a_full_disk_is_reported_once_and_learning_continues(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each failure is counted, the first one and the next success are logged, and the old file stays."""
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full is needed")
    estimator = taught()
    path = tmp_path / "state"
    keeper, outcomes = saver(path, estimator)
    keeper.save(estimator.state())
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *_: open("/dev/full", "wb"))  # noqa: PTH123, SIM115
        for _ in range(3):
            teach(estimator, 1)
            keeper.save(estimator.state())
    assert before == path.read_bytes()
    teach(estimator, 1)
    with caplog.at_level(logging.INFO, "dualpool"):
        keeper.save(estimator.state())
    assert [True, False, False, False, True] == outcomes.saved
    assert [record.getMessage() for record in caplog.records] == [
        "learned state cannot be saved",
        "learned state is saved again",
    ]
    fields = caplog.records[0].fields  # type: ignore[attr-defined]
    assert str(path) == fields["path"]
    assert "No space left" in fields["cause"]


def test_a_missing_directory_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Failures are counted and logged once, and saving works again as soon as the directory exists."""
    folder = tmp_path / "folder"
    estimator = taught()
    keeper, outcomes = saver(folder / "state", estimator)
    keeper.save(estimator.state())
    keeper.save(estimator.state())
    folder.mkdir()
    keeper.save(estimator.state())
    assert [False, False, True] == outcomes.saved
    assert 1 == caplog.text.count("cannot be saved")


def test_a_read_only_directory_is_reported_and_learning_continues(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """If nothing can be written, each attempt is counted, and the first one is logged."""
    folder = tmp_path if os.geteuid() else Path("/sys")  # root can write to almost every directory
    if not os.geteuid() and not folder.exists():
        pytest.skip("a directory that is read-only to root is needed")
    tmp_path.chmod(0o500)
    estimator = taught()
    keeper, outcomes = saver(folder / "state", estimator)
    for _ in range(2):
        teach(estimator, 1)
        keeper.save(estimator.state())
    assert [False, False] == outcomes.saved
    assert 1 == caplog.text.count("cannot be saved")


def test_an_unchanged_state_is_not_written_again(tmp_path: Path) -> None:
    """An idle router does not write to the disk."""
    estimator = taught()
    keeper, outcomes = saver(tmp_path / "state", estimator)
    for _ in range(3):
        keeper.save(estimator.state())
    assert [True] == outcomes.saved


def test_fields_of_a_later_version_survive_load_and_save(tmp_path: Path) -> None:
    """A router of an older version between two newer ones loses none of their fields."""
    message = to_message(taught().state())
    message.models[0].MergeFromString(LATER)
    path = tmp_path / "state"
    path.write_bytes(framed(message.SerializeToString()))
    estimator = ByteClassEstimator(EstimatorSettings())
    keeper, _ = saver(path, estimator)
    assert keeper.load()
    teach(estimator, 1)
    keeper.save(estimator.state())
    read = read_state(path)
    assert LATER in read.models[0].SerializeToString()
    assert from_message(read).models[0].observations == 21


def test_one_save_waits_for_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The final save may start while a slow disk is busy with another one, whose older state must not stay."""
    estimator, done, begun, both = taught(), list[str](), threading.Event(), threading.Event()
    keeper, _ = saver(tmp_path / "state", estimator)

    def save(_file: StateFile, _state: LearnedState) -> None:
        done.append("begins")
        begun.set()
        both.set() if len(done) > 1 else both.wait(0.1)
        done.append("ends")

    monkeypatch.setattr(StateFile, "save", save)
    slow = threading.Thread(target=keeper.save, args=(estimator.state(),))
    slow.start()
    assert begun.wait(10)
    teach(estimator, 1)
    keeper.save(estimator.state())
    slow.join()
    assert ["begins", "ends"] * 2 == done


def test_an_unusable_file_is_refused_by_name(tmp_path: Path) -> None:
    """The error says which file it is, and why it cannot be used."""
    with pytest.raises(ConfigurationError, match="none"):
        read_state(tmp_path / "none")
    (tmp_path / "odd").write_bytes(framed(b"\xff" * 10))
    with pytest.raises(ConfigurationError, match="odd: it is not valid protobuf"):
        read_state(tmp_path / "odd")
    assert state_pb2.LearnedState() == read_state_of(tmp_path)


def _device(folder: Path) -> Path:
    """Return a device of its own where the test may make one, otherwise /dev/null, which it cannot rename."""
    device = folder / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        return Path("/dev/null")
    return device


def read_state_of(folder: Path) -> state_pb2.LearnedState:
    """Return an empty state after writing and reading it."""
    (folder / "empty").write_bytes(framed(b""))
    return read_state(folder / "empty")


def names_in(folder: Path) -> list[str]:
    """Return the names of all files in a folder."""
    return [path.name for path in folder.iterdir()]
