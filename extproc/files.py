"""Files that somebody names: read up to what one of their kind can hold, so that no name takes all memory.

A device or a pipe has no size that could be asked for, and a sparse file has any: what counts is what comes out.
"""

import errno
from pathlib import Path
from typing import BinaryIO

__all__ = ["read_file", "read_from"]


def read_file(path: Path | str, most_bytes: int) -> bytes:
    """Return what a file holds. Raises OSError where it cannot be read, or holds more than this."""
    with Path(path).open("rb") as file:
        return read_from(file, most_bytes, str(path))


def read_from(file: BinaryIO, most_bytes: int, name: str) -> bytes:
    """Return the rest of what is open. Raises OSError, with the name in it, for more than this."""
    content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"larger than the {most_bytes:,} bytes that are read", name)
    return content
