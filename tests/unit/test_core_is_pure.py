"""The first rule of the house: `core/` imports the standard library, numpy, the JSON decoder and itself."""

import ast
import sys
from pathlib import Path

import pytest

import extproc.core

CORE = Path(extproc.core.__file__).parent
ALLOWED_PACKAGES = {"numpy", "msgspec", "brotli", "zstandard"}
# Modules of the standard library that access the clock, randomness, the environment, files or sockets.
IMPURE = {"asyncio", "datetime", "io", "logging", "os", "pathlib", "random", "secrets", "socket", "subprocess"} | {
    "tempfile",
    "threading",
    "time",
    "urllib",
    "uuid",
}


def imported_modules(source: Path) -> set[str]:
    """Return the full names of all modules that a file imports, at any level."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("source", sorted(CORE.rglob("*.py")), ids=lambda path: str(path.relative_to(CORE)))
def test_core_imports_nothing_impure(source: Path) -> None:
    """Every module of core imports only pure modules of the standard library, numpy, the decoders and core."""
    for name in imported_modules(source):
        root = name.split(".")[0]
        pure_library = root in sys.stdlib_module_names and root not in IMPURE
        assert pure_library or root in ALLOWED_PACKAGES or name.startswith("extproc.core"), name
