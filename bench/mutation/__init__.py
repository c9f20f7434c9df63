"""`make mutants`: change one operator of `core/` at a time, and see whether the unit tests of core notice.

The changes are Cosmic Ray's (its operators and its way to apply them), and two of ours that it lacks: a bound
taken away (`min`, `max`), and a statement left out. Its own way of running tests starts an interpreter for each
change, seconds before the first test; here a process that has imported pytest and the libraries, but nothing of
ours, is forked for each. Which tests run a line is measured first; of a mutant only those are run, first
those named after its file, until one fails.

Rejected: mutmut, which changes functions only. It leaves out properties (the bound that requests are routed by is
one), constants, tables and everything else that stands outside of a function.
"""
