"""Where commands keep what they need again."""

import os
import tempfile
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Return the folder for what can be computed again: XDG's; the temporary one where the user has no home.

    Containers run with user ids that have none.
    """
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "dualpool"
    try:
        return Path.home() / ".cache" / "dualpool"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "dualpool"
