"""`make mutants`: change one operator of `core/` at a time and check whether the unit tests of core notice.

The changes are Cosmic Ray's (its operators and its code to apply them), plus two that it lacks: removing a bound
(`min`, `max`), and removing a statement. Cosmic Ray's own runner starts an interpreter for each change, which
takes seconds before the first test. Here a change of a function is applied in a fork of a process that has
imported all tests (live.py); any other change in a fork of a process that has imported the libraries, but none of
our code (worker.py). First, baseline.py measures which tests run which lines. For each mutant, only the tests of
its lines run, until one fails: first those that killed another mutant of its file, then those named after its file
or package, then the fastest.

Rejected: mutmut, which changes only functions. It omits properties (the bound by which requests are routed is
one), constants, tables and everything else outside functions.
"""

__all__ = ["ROOMS"]

# Tests that import no other packages of ours are tests of core or wire. tests/conftest.py measures coverage with
# those only.
ROOMS = frozenset({"core", "wire", "config", "documents", "compose", "telemetry", "access_log"})
