"""Reading of files whose names come from users, up to a limit, so that no file exhausts the memory.

The reported size is not used: a device or a pipe has none, and a sparse file may have any. The bytes read count.
"""

import errno
import os
from pathlib import Path
from typing import BinaryIO

__all__ = ["Stamp", "read_file", "read_followed", "read_from", "refuse_pipe", "stamp_of", "token_in"]

Stamp = tuple[int, int, int]


def read_file(path: Path | str, most_bytes: int) -> bytes:
    """Return a file's content. Raises OSError if it cannot be read or is larger than `most_bytes`."""
    with Path(path).open("rb") as file:
        return read_from(file, most_bytes, str(path))


def read_followed(path: Path | str, most_bytes: int) -> bytes:
    """Return the content of a file that is read again and again, as read_file does; not of a named pipe."""
    refuse_pipe(path)
    return read_file(path, most_bytes)


def refuse_pipe(path: Path | str) -> None:
    """Raise OSError for a named pipe: whoever opens one waits for a writer, and can read its content only once."""
    if Path(path).is_fifo():
        raise OSError(errno.EINVAL, "a pipe, which can be read only once", str(path))


def stamp_of(path: str) -> Stamp | None:
    """Return a value that changes when a file is written or replaced; None if there is no file, or no path."""
    try:
        found = os.stat(path)  # noqa: PTH116  (Path("") would be the working folder)
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def read_from(file: BinaryIO, most_bytes: int, name: str) -> bytes:
    """Return the rest of an open file. Raises OSError, which includes `name`, if it is more than `most_bytes`."""
    content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"larger than the {most_bytes:,} bytes that are read", name)
    return content


def token_in(content: bytes) -> str:
    """Return the token in the first line of a file. Raises ValueError, which does not show it, if it is none."""
    token = content.decode(errors="replace").partition("\n")[0].strip()
    if not (token.isascii() and token.isprintable() and token and " " not in token):
        raise ValueError("its first line is not a token (printable ASCII without spaces)")
    return token
