"""Exact counts in the offline comparison."""

from pathlib import Path

from extproc.evaluation.contestants import byte_class
from extproc.evaluation.exact import Counts, ExactNearLimits, exact_near_limits
from extproc.evaluation.measure import figures, run
from extproc.evaluation.mixes import Material, mixed
from extproc.evaluation.requests import Request
from extproc.evaluation.tokenizers import Tokenizer
from tests.unit.test_evaluation import small_texts, words

# Many requests are near a threshold.
LENGTHS = [(tokens, 20) for tokens in range(3_000, 5_000, 50)]


def stream_of(folder: Path, count: int) -> tuple[Tokenizer, list[Request]]:
    """Return a tokenizer of words, and a stream of the mix with three kinds of text."""
    toy = Tokenizer("toy", words, 4, 3, folder)
    texts = {kind: text for kind, text in small_texts(0).items() if kind in {"logs", "csv", "sql"}}
    return toy, list(mixed(Material(texts, LENGTHS), toy, count, seed=1))


def test_a_part_of_the_requests_is_counted(tmp_path: Path) -> None:
    """Those near a threshold are counted; they make no more detours than without counts, and the bound holds."""
    toy, stream = stream_of(tmp_path, 300)
    plain = figures(run(byte_class(), stream), stream, 20)
    (exact,), counts = exact_near_limits(toy, [stream], 20)
    assert exact.near[0].detoured[0] <= plain.near[0].detoured[0]
    assert exact.near[0].under_counted <= 0.02
    assert (300, True) == (counts.placed, 0.01 < counts.share < 0.5)
    assert counts.mean_ms > 0
    assert counts.text_bytes > 4_096 * counts.counted


def test_no_request_is_too_long_to_be_estimated(tmp_path: Path) -> None:
    """Requests above both thresholds get an estimate, too, and are not counted."""
    toy, stream = stream_of(tmp_path, 300)
    counts = Counts()
    run(ExactNearLimits(toy, counts), [max(stream, key=lambda request: request.tokens)])
    assert 1 == counts.placed
