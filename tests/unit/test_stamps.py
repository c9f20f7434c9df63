"""The stamp by which a followed file is seen to have changed."""

import os
from pathlib import Path

import pytest

from extproc.files import stamp_of

WRITTEN_NS = 1_700_000_000_000_000_000


def file_of(path: Path, content: str, written_ns: int = WRITTEN_NS) -> Path:
    """Write a file that says it was written at this time."""
    path.write_text(content, "utf-8")
    os.utime(path, ns=(written_ns, written_ns))
    return path


def test_a_file_that_nobody_touches_keeps_its_stamp(tmp_path: Path) -> None:
    """It is not read again."""
    file = str(file_of(tmp_path / "key", "one"))
    assert stamp_of(file) is not None
    assert stamp_of(file) == stamp_of(file)


def test_each_way_to_change_a_file_changes_its_stamp(tmp_path: Path) -> None:
    """Written with as many bytes; written within one tick of the clock with others; replaced by a file that is as
    long and as old.
    """
    file = file_of(tmp_path / "key", "one")
    stamps = [stamp_of(str(file))]
    file_of(file, "two", WRITTEN_NS + 1)
    stamps.append(stamp_of(str(file)))
    file_of(file, "three", WRITTEN_NS + 1)
    stamps.append(stamp_of(str(file)))
    file_of(tmp_path / "new", "other", WRITTEN_NS + 1).rename(file)
    stamps.append(stamp_of(str(file)))
    assert 4 == len(set(stamps))


@pytest.mark.parametrize("name", ["", "missing", "a\0b"])
def test_what_is_no_file_has_no_stamp(name: str, tmp_path: Path) -> None:
    """A setting that names no file, a file that is not there, and a name that no file can have."""
    assert stamp_of(str(tmp_path / name) if name else name) is None
