"""The file of the access log's key: when a changed key is taken up, and what happens to a bad one."""

import logging
from pathlib import Path

import pytest

from extproc.server.log_key import KeyFile, read_key

OLD, NEW = b"o" * 32, b"n" * 32


class Followed:
    """A key file, the key in use, and how often it was renewed; `looks` does what the following does over time."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "key"
        self.path.write_bytes(OLD)
        self.name = str(self.path)
        self.key = OLD
        self.learns = True
        self.renewals = 0
        self.unusable: list[bool] = []
        self.file = KeyFile(
            lambda: (self.name, self.key) if self.learns else None, self._renew, self.unusable.append
        )
        self.looks()

    def looks(self, times: int = 2) -> None:
        """Look at the file this many times."""
        for _ in range(times):
            self.file.look()

    def _renew(self) -> None:
        self.renewals += 1
        self.key = read_key(self.name)


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    """Return a key file whose key is in use."""
    return Followed(tmp_path)


def test_a_changed_key_is_used_when_two_looks_saw_the_same(followed: Followed) -> None:
    """A key that only one look has seen may be half of one; a key is taken up once, also a former one."""
    followed.path.write_bytes(NEW + b"half")
    followed.looks(1)
    followed.path.write_bytes(NEW)
    followed.looks(1)
    assert (OLD, 0) == (followed.key, followed.renewals)
    followed.looks(3)
    assert (NEW, 1) == (followed.key, followed.renewals)
    followed.path.write_bytes(OLD + b"\n")
    followed.looks()
    assert (OLD, 2) == (followed.key, followed.renewals)


def test_whether_the_file_can_be_used_is_reported(followed: Followed) -> None:
    """So that an alert can tell of a bad key, until a good one comes or the log is not used any more."""
    assert not any(followed.unusable)
    followed.path.write_bytes(b"short")
    followed.looks()
    assert followed.unusable[-1]
    followed.path.write_bytes(NEW)
    followed.looks()
    assert not followed.unusable[-1]
    followed.path.unlink()
    followed.looks()
    assert followed.unusable[-1]
    followed.learns = False
    followed.looks()
    assert not followed.unusable[-1]


def test_a_bad_key_never_replaces_a_good_one(followed: Followed, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, until a good one comes; an empty file that only one look has seen is not logged."""
    with caplog.at_level(logging.ERROR, "dualpool"):
        followed.path.write_bytes(b"")
        followed.looks(1)
        followed.path.write_bytes(OLD)
        followed.looks()
        assert [] == caplog.messages
        for _ in range(2):
            followed.path.write_bytes(b"short")
            followed.looks(5)
            followed.path.write_bytes(OLD)
            followed.looks()
    assert 2 == len(caplog.messages)
    assert "the old one stays in use: learning.access_log.key_file: " in caplog.text
    assert (OLD, 0) == (followed.key, followed.renewals)


def test_a_renewal_that_fails_is_tried_again(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The router may be too busy to take the key up; each look tries again."""

    def busy() -> None:
        raise TimeoutError

    followed.path.write_bytes(NEW)
    followed.looks(1)
    with monkeypatch.context() as patch:
        patch.setattr(followed.file, "_renew", busy)
        with pytest.raises(TimeoutError):
            followed.looks(1)
    followed.looks(1)
    assert NEW == followed.key


def test_without_a_file_or_a_log_there_is_nothing_to_follow(followed: Followed) -> None:
    """A key that the process has made itself stays, and a router that does not use the log reads no file."""
    followed.name = ""
    followed.looks(3)
    followed.name, followed.learns = "/missing", False
    followed.looks(3)
    assert (OLD, 0) == (followed.key, followed.renewals)
