"""`make mutants`: change one operator of `core/` at a time, and see whether the unit tests of core notice.

The changes are Cosmic Ray's (its operators and its way to apply them), and two of ours that it lacks: a bound
taken away (`min`, `max`), and a statement left out. Its own way of running tests starts an interpreter for each
change, seconds before the first test. Here a change of a function is put into the fork of a process that has
imported all tests (live.py), any other into the fork of one that has imported the libraries, but nothing of ours
(worker.py). Which tests run a line is measured first (baseline.py); of a mutant only those are run, until one
fails: those that killed another mutant of its file, then those named after its file or room, then the quickest.

Rejected: mutmut, which changes functions only. It leaves out properties (the bound that requests are routed by is
one), constants, tables and everything else that stands outside of a function.
"""
