"""Tokenizers loaded from files: their counts, their time limits, and which files are rejected."""

import sys
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.compose import compose, recompose
from extproc.config.loading import as_json, parse, parse_shown
from extproc.core.errors import ConfigurationError
from extproc.core.listener import Listener
from extproc.exact.tokenizers import PIECE_BYTES, Tokenizers, _pieces
from tests.unit.tokenizer_files import byte_level

pytest.importorskip("fastokens", reason="needs dualpool[exact]")

MINUTE_MS = 60_000.0


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Return the file of a byte-level tokenizer that knows one word."""
    return byte_level(tmp_path, "hello")


def test_each_text_is_counted_by_the_models_tokenizer(file: str, tmp_path: Path) -> None:
    """A known word is one token, any other byte is one; the first glob that matches a model decides."""
    (tmp_path / "other").mkdir()
    other = byte_level(tmp_path / "other")
    tokenizers = Tokenizers({"one*": file, "o*": other}, MINUTE_MS)
    assert ["one*", "o*", None] == [tokenizers.tokenizer_of(model) for model in ("one-7b", "other", "third")]
    texts = [b"hello", b"", "hello \u4e16".encode()]
    assert (1, 0, 5) == tokenizers.count("one*", texts).tokens
    assert (5, 0, 9) == tokenizers.count("o*", texts).tokens


def test_long_texts_are_counted_in_pieces(file: str) -> None:
    """A text is never cut within a word, so the count equals that of the whole text."""
    text = b"hello hello\n" * (PIECE_BYTES // 4)
    (counted,) = Tokenizers({"*": file}, MINUTE_MS).count("*", [text]).tokens
    assert 4 * (PIECE_BYTES // 4) == counted


@given(st.lists(st.sampled_from(["a", " ", "\n", "\u00e9", "\u4e16", "\U0001f600"]), min_size=1, max_size=9))
def test_pieces_are_the_text(letters: Sequence[str]) -> None:
    """Pieces make up the whole text, none exceeds the maximum, and each consists of whole characters."""
    text = ("".join(letters) * PIECE_BYTES).encode()[: 3 * PIECE_BYTES].decode(errors="ignore").encode()
    pieces = list(_pieces(text))
    assert text == b"".join(pieces)
    assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)
    assert text.decode() == "".join(piece.decode() for piece in pieces)


def ticking(step_s: float) -> Callable[[], float]:
    """Return a clock that advances by a step each time it is read."""
    ticks = count()
    return lambda: next(ticks) * step_s


def test_a_count_is_given_up_when_its_time_is_used_up(file: str) -> None:
    """The clock is checked between pieces."""
    text = b"word\n" * PIECE_BYTES  # slightly more than five pieces
    patient = Tokenizers({"*": file}, 50.0, ticking(0.001)).count("*", [text])
    hasty = Tokenizers({"*": file}, 3.0, ticking(0.001)).count("*", [text])
    assert patient.tokens
    assert () == hasty.tokens
    assert 0.005 == pytest.approx(hasty.seconds)


class PanicException(BaseException):
    """The exception that PyO3 raises if Rust panics."""


@pytest.mark.parametrize("error", [ValueError("match limit"), PanicException("index out of bounds")])
def test_the_estimate_stands_if_the_library_fails(file: str, error: BaseException) -> None:
    """Whatever goes wrong in the library, the request is placed."""

    def fail(_text: str) -> Sequence[int]:
        raise error

    tokenizers = Tokenizers({"*": file}, 5.0)
    tokenizers._encode["*"] = fail
    assert () == tokenizers.count("*", [b"text"]).tokens


def test_an_exit_of_the_program_is_not_caught(file: str) -> None:
    """An exception that ends the process is not caught."""

    def end(_text: str) -> Sequence[int]:
        raise KeyboardInterrupt

    tokenizers = Tokenizers({"*": file}, 5.0)
    tokenizers._encode["*"] = end
    with pytest.raises(KeyboardInterrupt):
        tokenizers.count("*", [b"text"])


def test_all_counts_share_a_limited_part_of_the_time(file: str) -> None:
    """A flood of counts uses up the time; after that, estimates stand until some of it is available again."""
    now_s = [100.0]

    def clock() -> float:
        now_s[0] += 0.002
        return now_s[0]

    tokenizers = Tokenizers({"*": file}, 50.0, clock)
    flood = [bool(tokenizers.count("*", [b"hello"]).tokens) for _ in range(40)]
    assert flood[0]
    assert 14 <= flood.index(False) <= 18  # each takes 4 ms, of which slightly more than a fifth is returned
    now_s[0] += 10.0
    assert tokenizers.count("*", [b"hello"]).tokens


def test_a_count_that_cannot_finish_in_time_is_not_started(file: str) -> None:
    """A text that would take too long at any measured speed costs no time."""
    clock = ticking(1.0)
    given_up = Tokenizers({"*": file}, 0.1, clock).count("*", [b"x" * 30_000])
    assert ((), 0.0) == (given_up.tokens, given_up.seconds)


def test_all_unusable_files_are_reported(file: str, tmp_path: Path) -> None:
    """A missing file, a folder, and a file that is no tokenizer are each reported with setting and value."""
    (tmp_path / "no.json").write_text('{"a": 1}')
    files = {"m1": "/nowhere/t.json", "m2": str(tmp_path), "m3": str(tmp_path / "no.json"), "m4": file}
    with pytest.raises(ConfigurationError) as refused:
        Tokenizers(files, 1.0)
    assert [f"estimator.exact.{name}" for name in ("m1", "m2", "m3")] == [
        sentence.partition(": ")[0] for sentence in refused.value.sentences
    ]
    assert all("tokenizer.json" in sentence for sentence in refused.value.sentences)
    assert "'/nowhere/t.json'" in refused.value.sentences[0]


def test_without_the_library_the_extra_is_named(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a file is configured and the library is missing, the error names the extra to install."""
    monkeypatch.setitem(sys.modules, "fastokens", None)
    with pytest.raises(ConfigurationError, match=r"install dualpool\[exact\]"):
        Tokenizers({"*": file}, 1.0)


def test_nothing_is_loaded_if_nothing_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A router without tokenizers does not need their library."""
    monkeypatch.setitem(sys.modules, "fastokens", None)
    assert compose(parse(""), Listener()).placer.counting is None


def test_files_are_configured_by_globs_of_models(file: str) -> None:
    """The setting is a mapping, which /config shows unchanged."""
    configuration = parse(f'estimator: {{exact: {{"llama-3.*": {file}}}}}')
    assert {"llama-3.*": file} == configuration.estimator.exact
    assert configuration == parse_shown(as_json(configuration).decode())


@pytest.mark.parametrize(
    ("exact", "error"),
    [
        ("[a]", "estimator.exact: ['a'] given; allowed: a mapping of globs of models to files' names"),
        ('{m: ""}', "estimator.exact.m: '' given; allowed: files' names"),
        ("{3: a}", "estimator.exact: 3 given; allowed: globs of models"),
    ],
)
def test_an_invalid_mapping_is_rejected(exact: str, error: str) -> None:
    """A fault in the setting is reported with field, value and what is allowed."""
    with pytest.raises(ConfigurationError) as refused:
        parse(f"estimator: {{exact: {exact}}}")
    assert (error,) == refused.value.sentences


def test_a_reload_keeps_what_counting_has_learned(file: str) -> None:
    """With the same settings what was learned stays; with others files are reloaded; a bad file is rejected."""
    before = parse(f'estimator: {{exact: {{"*": {file}}}}}')
    router = compose(before, Listener())
    learned = router.placer.estimator
    changed = parse(f'mode: shadow\nestimator: {{exact: {{"*": {file}}}}}')
    assert router.placer.counting is recompose(router, before, changed, learned).placer.counting
    assert recompose(router, before, parse(""), learned).placer.counting is None
    with pytest.raises(ConfigurationError, match="nowhere"):
        recompose(router, before, parse('estimator: {exact: {"*": /nowhere}}'), learned)
