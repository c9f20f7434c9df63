"""A process that has collected all tests and tries mutants of functions in forked children of itself.

Run by the worker as `python -m bench.mutation.live FILES...`. A function keeps its identity when its code object
is replaced: everything that has imported it, or holds a bound method of it, calls the changed code. So a child
need not import modules again, which takes many times longer than most tests. This does not work for a change
outside of a function (a constant, a default, an annotation), nor for code that ran before the first test, because
its results already exist: the worker tries those with fresh imports.

Prior art: mutant schemata (Untch, Offutt, Harrold, "Mutation analysis using mutant schemata", 1993): one build
contains all mutants, and each is switched on in turn. Here the code of each mutant is added when it is tried.
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
    """Return the code before and after of the only function that differs, or None if anything else differs."""
    if _outside(before) != _outside(after):
        return None
    pairs = list(zip(_functions(before), _functions(after), strict=True))
    # If a statement of several lines became one line, later functions differ, too, but only by their line numbers.
    changed = next(((old, new) for old, new in pairs if old != new), None)
    if changed is None or changed[0].co_freevars != changed[1].co_freevars:
        return None
    return changed


def _functions(code: CodeType) -> Iterator[CodeType]:
    """Yield the functions of a module or class, including methods, but not nested functions."""
    for each in code.co_consts:
        if isinstance(each, CodeType):
            if each.co_flags & CO_OPTIMIZED:
                yield each
            else:
                yield from _functions(each)


def _outside(code: CodeType) -> tuple[Any, ...]:
    """Return the code of a module or class outside of functions, in comparable form."""
    consts = tuple(
        (each.co_name if each.co_flags & CO_OPTIMIZED else _outside(each)) if isinstance(each, CodeType) else each
        for each in code.co_consts
    )
    return code.co_code, code.co_names, repr(consts)


class _Trials:
    """A pytest plugin that tries incoming mutants instead of running the collected tests."""

    def __init__(self, trials: TextIO, verdicts: TextIO) -> None:
        self._trials = trials
        self._verdicts = verdicts

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Called by pytest after collection. It answers a trial that it cannot run with an empty line."""
        functions = [each for each in gc.get_objects() if type(each) is FunctionType]
        gc.freeze()  # A garbage collection in a child would otherwise write to, and so copy, every page.
        for line in self._trials:
            trial = Trial.read(line)
            run = _Run(session, trial, functions)
            self._verdicts.write(verdict(run).line() if run.possible else "\n")
            self._verdicts.flush()
        return True


class _Run:
    """A trial within a pytest session that has collected its tests."""

    def __init__(self, session: pytest.Session, trial: Trial, functions: Iterable[FunctionType]) -> None:
        path = Path(trial.module).resolve()
        codes = changed_function(compile(path.read_text(), path, "exec"), compile(trial.source, path, "exec"))
        of_file = [each for each in functions if each.__code__.co_filename == str(path)]
        self._changes = [(each, codes[1]) for each in of_file if codes and each.__code__ == codes[0]]
        self._session = session
        self._seconds = trial.seconds

    @property
    def possible(self) -> bool:
        """Whether the change affects a function that exists in this process."""
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
    """Collect the tests, then try the mutants that arrive on standard input."""
    trials, verdicts = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    explain_nothing()
    return pytest.main([*OPTIONS, *files], plugins=[_Trials(trials, verdicts)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
