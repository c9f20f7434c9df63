"""Requests whose responses have one token, as of classifiers: they have no time per output token."""

import numpy as np

from extproc.planning.hardware.catalogue import built_in
from extproc.planning.model.costs import costs_of
from extproc.planning.model.options import ProfileOptions, setup_of
from extproc.planning.output.fleet_tables import fleet_tables
from extproc.planning.simulation.cache import ResultCache
from extproc.planning.simulation.runner import search_all
from extproc.planning.simulation.task import Design, SearchTask
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths


def test_a_time_per_token_that_does_not_exist_is_a_dash() -> None:
    """No table of the fleet shows "nan"."""
    lengths = Lengths(np.full(2_000, 500), np.full(2_000, 1), "classifier")
    setup = setup_of(ProfileOptions("llama-3-8b", "h100-80g", 1, times="roofline"), built_in())
    task = SearchTask(Design("one pool", (65_536,)), setup, lengths, DeclaredRule.TRUTH, 5, 2_000, 1)
    fleets = search_all([task], 1, ResultCache(None), lambda *_: None)
    cells = [
        cell
        for table in fleet_tables("fleets", fleets, costs_of(setup), full=True)
        for column in table.columns
        for cell in column.cells
    ]
    assert "- / -" in cells
    assert not [cell for cell in cells if "nan" in str(cell)]
