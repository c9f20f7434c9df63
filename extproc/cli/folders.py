"""The folder in which commands cache their results."""

import os
import tempfile
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Return the cache folder, as XDG defines it; one in the temporary folder if the user has no home folder.

    User IDs in containers often have none.
    """
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "dualpool"
    try:
        return Path.home() / ".cache" / "dualpool"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "dualpool"
