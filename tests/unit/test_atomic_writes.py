"""A file that is written is either the old one or the new one, whatever fails in between."""

import errno
import os
import stat
from pathlib import Path

import pytest

from extproc.state.file import write_atomically


def test_a_file_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the directory is synced, too: a power cut leaves either the old file or the new one."""
    done: list[str] = []
    renamed = Path.replace

    def fsync(descriptor: int) -> None:
        found = os.fstat(descriptor)
        done.append("folder" if stat.S_ISDIR(found.st_mode) else f"{found.st_size} bytes")

    def replace(aside: Path, path: Path) -> Path:
        done.append("renamed")
        return renamed(aside, path)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write_atomically(tmp_path / "state", b"whole")
    assert ["5 bytes", "renamed", "folder"] == done


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the rename fails, neither a partial file nor a temporary one is left."""
    path = tmp_path / "state"
    write_atomically(path, b"old")

    def refused(_self: Path, _to: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(OSError, match="Input/output error"):
        write_atomically(path, b"new")
    assert b"old" == path.read_bytes()
    assert ["state"] == [each.name for each in tmp_path.iterdir()]
