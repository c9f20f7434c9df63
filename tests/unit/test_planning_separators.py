"""Traces and day curves whose cells are separated by semicolons or tabs, as spreadsheets write them."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.errors import ConfigurationError
from extproc.planning.workload.day import parse_day
from extproc.planning.workload.traces import parse_trace

SEPARATED = pytest.mark.parametrize("separator", [";", "\t"])
NAMES = ("TIMESTAMP", "note; with, all", "ContextTokens", "", "GeneratedTokens")
ROWS = st.lists(
    st.tuples(st.integers(0, 9_999), st.integers(0, 10**6), st.integers(0, 10**6)), min_size=2, max_size=9
)


@given(
    rows=ROWS, order=st.permutations(range(len(NAMES))), separator=st.sampled_from(",;\t"), spare=st.text(";,\t a")
)
def test_a_trace_is_the_same_with_any_separator(
    rows: list[tuple[int, int, int]], order: list[int], separator: str, spare: str
) -> None:
    """In any order of the columns, beside columns with empty cells and with separators in quotes."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator)
    writer.writerow([NAMES[at] for at in order])
    for second, prompt, output in rows:
        cells = (second, spare, prompt, "", output)
        writer.writerow([cells[at] for at in order])
    found = parse_trace(io.StringIO(file.getvalue(), newline="\n"), "t.csv")
    rows.sort(key=lambda row: row[0])
    assert found.arrival_s is not None
    assert (found.arrival_s + found.start_s).tolist() == [row[0] for row in rows]
    assert [*zip(found.prompt.tolist(), found.output.tolist(), strict=True)] == [row[1:] for row in rows]


@SEPARATED
def test_a_distribution_and_a_day_may_be_separated_likewise(separator: str) -> None:
    """Both are the same as with commas."""
    cdf = ["fraction,input_tokens,output_tokens\n", "0.5,100,10\n", "1,200,30\n"]
    day = ["hour,load\n", "0.5,1\n", "12,3\n"]
    one, other = (parse_trace([row.replace(",", by) for row in cdf], "t") for by in (",", separator))
    assert np.array_equal(one.prompt, other.prompt)
    assert np.array_equal(one.output, other.output)
    assert parse_day(day, "d") == parse_day([row.replace(",", separator) for row in day], "d")


@pytest.mark.parametrize("row", ["1;374,0;44", "1;1.155;44", "1;374;44,5"])
def test_decimal_commas_and_points_of_thousands_are_refused(row: str) -> None:
    """A number that has another meaning elsewhere is not guessed."""
    with pytest.raises(ConfigurationError, match=r"line 2: .* is not a (whole )?number of tokens"):
        parse_trace(["TIMESTAMP;ContextTokens;GeneratedTokens\n", row], "t.csv")


def test_a_file_of_other_columns_says_which_separators_are_read() -> None:
    """Anyone whose file is divided by something else sees what to change."""
    with pytest.raises(ConfigurationError, match="separated by commas, semicolons or tabs"):
        parse_trace(["TIMESTAMP|ContextTokens|GeneratedTokens\n", "1|2|3\n"], "t.csv")


def test_json_may_be_indented_by_a_tab() -> None:
    """Spaces of any kind before a row do not matter."""
    rows = ['\t{"input_tokens": 3, "output_tokens": 4}\n'] * 2
    assert [3, 3] == parse_trace(rows, "t.jsonl").prompt.tolist()
