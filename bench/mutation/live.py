"""A process that has collected all tests, and tries the mutants of functions in forked children of itself.

Run by the worker as `python -m bench.mutation.live FILES...`. A function keeps its identity when its code is
exchanged: whoever has imported it, or holds a method of it, calls the changed one. So a child need not import
anything anew, which takes many times what most tests do. This does not hold for a change outside of a function
(a constant, a default, an annotation), nor for one that ran before the first test, when something was made by it:
those the worker tries with everything imported anew.

Prior art: mutant schemata (Untch, Offutt, Harrold, "Mutation analysis using mutant schemata", 1993): one build
holds all mutants, and each is switched on in turn. Here each comes in as code of its own.
"""

import gc
import os
import sys
from collections.abc import Iterable, Iterator
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, TextIO

import pytest

from bench.mutation.child import OPTIONS, Patience, explain_nothing, verdict
from bench.mutation.trial import Trial

__all__ = ["changed_function"]


def changed_function(before: CodeType, after: CodeType) -> tuple[CodeType, CodeType] | None:
    """Return the code of the only function that differs between two modules; None when more than that does."""
    if _outside(before) != _outside(after):
        return None
    pairs = list(zip(_functions(before), _functions(after), strict=True))
    # A statement of several lines that became one moves what comes after it, which then differs by its lines.
    changed = next(((old, new) for old, new in pairs if old != new), None)
    if changed is None or changed[0].co_freevars != changed[1].co_freevars:
        return None
    return changed


def _functions(code: CodeType) -> Iterator[CodeType]:
    """Yield the functions of a module or class, methods among them, but none within another."""
    for each in code.co_consts:
        if isinstance(each, CodeType):
            if each.co_flags & CO_OPTIMIZED:
                yield each
            else:
                yield from _functions(each)


def _outside(code: CodeType) -> tuple[Any, ...]:
    """Return what a module or class does outside of functions."""
    consts = tuple(
        (each.co_name if each.co_flags & CO_OPTIMIZED else _outside(each)) if isinstance(each, CodeType) else each
        for each in code.co_consts
    )
    return code.co_code, code.co_names, repr(consts)


class _Trials:
    """A plugin that tries what comes in, in place of running what was collected."""

    def __init__(self, trials: TextIO, verdicts: TextIO) -> None:
        self._trials = trials
        self._verdicts = verdicts

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Called by pytest once all tests are collected. What is not for this process gets an empty line."""
        functions = [each for each in gc.get_objects() if type(each) is FunctionType]
        gc.freeze()  # A collection in a child would otherwise write to all there is, and so copy it.
        for line in self._trials:
            trial = Trial.read(line)
            run = _Run(session, trial, functions)
            self._verdicts.write(verdict(run).line() if run.possible else "\n")
            self._verdicts.flush()
        return True


class _Run:
    """A trial within a session of pytest that has collected its tests."""

    def __init__(self, session: pytest.Session, trial: Trial, functions: Iterable[FunctionType]) -> None:
        path = Path(trial.module).resolve()
        codes = changed_function(compile(path.read_text(), path, "exec"), compile(trial.source, path, "exec"))
        of_file = [each for each in functions if each.__code__.co_filename == str(path)]
        self._changes = [(each, codes[1]) for each in of_file if codes and each.__code__ == codes[0]]
        self._session = session
        self._seconds = trial.seconds

    @property
    def possible(self) -> bool:
        """Whether the change is one of a function that there is."""
        return bool(self._changes)

    def __call__(self, note: Path) -> bool:
        """Change the function and run the tests; return whether one failed."""
        for function, code in self._changes:
            function.__code__ = code
        config = self._session.config
        config.pluginmanager.register(Patience(self._seconds, note))
        by_id = {item.nodeid: item for item in self._session.items}
        items = [by_id[test] for test in self._seconds]
        for item, following in zip(items, [*items[1:], None], strict=True):
            config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self._session.testsfailed:
                return True
        return False


def main(files: list[str]) -> int:
    """Collect, then try what comes on standard input."""
    trials, verdicts = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    explain_nothing()
    return pytest.main([*OPTIONS, *files], plugins=[_Trials(trials, verdicts)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
