"""Evaluation of the conditions of routes: which values match, and which conditions take all that others take."""
