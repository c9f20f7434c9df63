"""Listing and sampling the mutants of files."""

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import MutationVisitor

from bench.mutation.operators import operators
from bench.mutation.trial import Outcome

__all__ = ["Change", "Mutant", "Result", "mutants", "room_of", "sampled"]


@dataclass(frozen=True, slots=True)
class Change:
    """A mutant's change: the module's changed source, and the differing lines before and after, each joined."""

    source: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """One place where an operator changes a module.

    `module` is the file's path in the project; `lines` are those of the changed statement.
    """

    module: str
    operator: str
    occurrence: int
    line: int
    lines: tuple[int, ...]

    def change(self, source: str) -> Change | None:
        """Return the change to the module's source, or None if it does not change anything."""
        changed = MutationVisitor.mutate_code(source, operators()[self.operator], self.occurrence)
        return None if changed is None or changed == source else Change(changed, *_difference(source, changed))


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one mutant."""

    mutant: Mutant
    change: Change
    outcome: Outcome


def mutants(root: Path, paths: Iterable[Path]) -> list[Mutant]:
    """Return all mutants of the files."""
    return [
        mutant for path in paths for mutant in _mutants_of(path.relative_to(root).as_posix(), path.read_text())
    ]


def room_of(mutant: Mutant) -> str:
    """Return the package of core that the mutant's module is in, or "core" itself."""
    return Path(mutant.module).parent.name


def sampled(everything: Sequence[Mutant], whole: Sequence[str], size: int, seed: int) -> list[Mutant]:
    """Return all mutants of the modules in `whole`, and a random sample of the rest of each package.

    The sample of a package is `size` plus a sixteenth of its other mutants, so that large packages get more. Each
    mutant is drawn by its own hash, so that a change of one file hardly changes the sample of the others.
    """

    def lot(mutant: Mutant) -> bytes:
        return blake2b(f"{seed} {mutant.module} {mutant.operator} {mutant.occurrence}".encode()).digest()

    chosen = [mutant for module in whole for mutant in everything if mutant.module == module]
    for room in sorted(set(map(room_of, everything))):
        others = [each for each in everything if room_of(each) == room and each.module not in whole]
        drawn = set(sorted(others, key=lot)[: size + len(others) // 16])
        chosen += (mutant for mutant in others if mutant in drawn)
    return chosen


def _mutants_of(module: str, source: str) -> Iterator[Mutant]:
    statements = _Statements(source)
    nodes = list(ast_nodes(get_ast(source)))
    for name, operator in operators().items():
        places = ((node, place) for node in nodes for place in operator.mutation_positions(node))
        for occurrence, (node, ((line, _), _)) in enumerate(places):
            # Cosmic Ray takes a `*` among parameters for a multiplication.
            if line not in statements.not_mutated and not (node.parent and node.parent.type == "parameters"):
                yield Mutant(module, name, occurrence, line, statements.lines_of(line))


def _difference(before: str, after: str) -> tuple[str, str]:
    """Return the lines that differ, without the common lines before and after them."""
    olds, news = before.splitlines(), after.splitlines()
    start = next((i for i, (old, new) in enumerate(zip(olds, news, strict=False)) if old != new), 0)
    end = next((i for i, (old, new) in enumerate(zip(olds[::-1], news[::-1], strict=False)) if old != new), 0)
    cut = [" ".join(" ".join(lines[start : len(lines) - end]).split()) for lines in (olds, news)]
    return cut[0], cut[1]


class _Statements:
    """The line ranges of a file's statements. Decorators, class heads and `__all__` are not mutated."""

    def __init__(self, source: str) -> None:
        self._lines: dict[int, tuple[int, ...]] = {}
        self.not_mutated: set[int] = set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.stmt):
                self._add(node)

    def lines_of(self, line: int) -> tuple[int, ...]:
        """Return all lines of the smallest statement that contains the line."""
        return self._lines.get(line, (line,))

    def _add(self, node: ast.stmt) -> None:
        body = getattr(node, "body", None) or getattr(node, "cases", None)
        start = body[0] if body else None
        end = start.pattern.lineno if isinstance(start, ast.match_case) else start.lineno if start else None
        last = (node.end_lineno or node.lineno) if end is None else max(end - 1, node.lineno)
        lines = tuple(range(node.lineno, last + 1))
        for line in lines:
            if len(lines) <= len(self._lines.get(line, lines)):
                self._lines[line] = lines
        if isinstance(node, ast.ClassDef):
            self.not_mutated.update(lines)
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.decorator_list:
            self.not_mutated.update(range(node.decorator_list[0].lineno, node.lineno))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            self.not_mutated.update(lines)
