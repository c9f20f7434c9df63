"""The import rules of the packages: each external dependency is used in one package only."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import extproc

ROOT = Path(extproc.__file__).parent
# Programs around the router, not packages of it: they import what they need.
AROUND = {"demo", "emulator", "cli", "__init__.py"}
# External package: the packages of ours that may import it.
ONLY_IN = {
    "grpc": {"server"},
    "grpc_health": {"wire"},
    "envoy": {"wire", "gateways"},
    "envoy_data_plane": {"gateways"},
    "betterproto2": {"gateways"},
    "google": {"wire", "state", "gateways"},
    "prometheus_client": {"telemetry", "server", "planning", "pools", "workers"},
    "httpx": {"pools"},
    "redis": {"state"},
    "fastokens": {"exact", "evaluation"},
    "ruamel": {"documents.py", "gateways"},
}
# Package of ours: the packages of ours that it may import.
MAY_IMPORT = {
    "core": {"core"},
    "access_log": {"core", "access_log"},
    "wire": {"core", "access_log", "wire"},
    "exact": {"core", "exact", "files"},
    "pools": {"core", "files", "pools"},
    "state": {"cancelling", "core", "files", "look_ups", "state"},
    "telemetry": {"core", "access_log", "telemetry"},
    "planning": {"core", "documents", "fetching", "files", "planning"},
    "evaluation": {"core", "evaluation", "files"},
    "config": {"core", "config", "documents", "files", "pools", "state"},
    "documents.py": {"core"},
    "fetching.py": set(),
    "files.py": set(),
    "cancelling.py": set(),
    "look_ups.py": set(),
    "gateways": {"core", "config", "fetching", "gateways"},
}
SOURCES = [path for path in sorted(ROOT.rglob("*.py")) if "pb" not in path.parts]


@cache
def imports(source: Path) -> frozenset[str]:
    """Return the full names of all modules that a file imports."""
    return frozenset(
        name
        for node in _nodes(source)
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    )


@cache
def _nodes(source: Path) -> list[ast.Import | ast.ImportFrom]:
    tree = ast.walk(ast.parse(source.read_text("utf-8")))
    return [node for node in tree if isinstance(node, ast.Import | ast.ImportFrom)]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_what_it_may(source: Path) -> None:
    """Every file follows its package's import rules, for external packages and ours."""
    room = source.relative_to(ROOT).parts[0]
    for name in imports(source):
        package, _, rest = name.partition(".")
        assert room in ONLY_IN.get(package, {room}) | AROUND, f"{name} is not for {room}/"
        if package == "extproc" and rest and room in MAY_IMPORT:
            assert rest.split(".")[0] in MAY_IMPORT[room], f"{name} is not for {room}/"


def test_one_module_knows_grpcs_core() -> None:
    """Private parts of gRPC, which may change with any version, are imported in one module."""
    knowing = {path.name for path in SOURCES if any("cython" in name for name in imports(path))}
    assert {"grpc_private.py"} == knowing


def test_no_modules_import_each_other() -> None:
    """No module imports itself by way of others, not even within a function or for types only."""
    module_of = {_name(path): path for path in SOURCES}
    graph = {name: _modules(path) & module_of.keys() - {name} for name, path in module_of.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def _modules(source: Path) -> set[str]:
    """Return what a file imports, and of a package also what it imports from it: these may be modules, too."""
    parts = [node for node in _nodes(source) if isinstance(node, ast.ImportFrom)]
    return {f"{node.module}.{alias.name}" for node in parts for alias in node.names} | imports(source)


def _name(source: Path) -> str:
    parts = source.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
