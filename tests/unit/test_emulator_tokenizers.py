import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.errors import ConfigurationError
from extproc.emulator import tokenizers
from extproc.emulator.settings import TokenizerName
from extproc.emulator.tokenizers import SLICE_CHARACTERS, ByteRule, Tokenizer, count_tokens, load_tokenizer

TEXT = "Hello wörld, привет 你好 🙂\n\n    x = 12345 + y\t"


@pytest.fixture(params=["qwen", "cl100k", "deepseek", "bytes"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """Return each tokenizer that is installed."""
    try:
        return load_tokenizer(TokenizerName(request.param))
    except ConfigurationError as error:
        pytest.skip(str(error))


def test_the_tokens_joined_are_the_text(tokenizer: Tokenizer) -> None:
    """The bytes of all tokens, one after another, are the text's bytes."""
    assert b"".join(tokenizer.split(TEXT)) == TEXT.encode()


def test_count_is_the_number_of_tokens(tokenizer: Tokenizer) -> None:
    """A text counts as many tokens as it is split into."""
    assert tokenizer.count(TEXT) == len(tokenizer.split(TEXT))


def test_no_token_is_longer_than_the_bound(tokenizer: Tokenizer) -> None:
    """No token has more characters than the tokenizer declares, even in runs of one character."""
    runs = [" " * 600, "a" * 600, "=" * 600, "\n" * 600, "中" * 600]
    assert all(len(run) / tokenizer.count(run) <= tokenizer.max_chars_per_token for run in runs)


def test_half_of_a_pair_is_a_text(tokenizer: Tokenizer) -> None:
    """A lone surrogate, which JSON can hold, is counted as what a model would get instead of it."""
    assert tokenizer.count("a \ud800 b") == len(tokenizer.split("a \ud800 b")) > 2


def test_a_million_blanks_are_counted() -> None:
    """Input that would overflow the stack of a regular expression if matched in one piece is counted."""
    assert count_tokens(load_tokenizer(TokenizerName.AUTO), [" " * 1_000_000], 10**9) > 0


def test_counting_stops_over_the_limit() -> None:
    """Counting stops once over the limit, so a count costs no more than the limit."""
    counted: list[int] = []

    class Watched(ByteRule):
        def count(self, text: str) -> int:
            counted.append(len(text))
            return super().count(text)

    assert count_tokens(Watched(), ["word " * 1_000_000], 100) > 100
    assert counted == [SLICE_CHARACTERS]


def test_slicing_changes_the_count_by_little(tokenizer: Tokenizer) -> None:
    """The count of a text in slices is within a tenth of a percent of the whole text's."""
    text = TEXT * 400
    whole, sliced = tokenizer.count(text), count_tokens(tokenizer, [text], 10**9)
    assert abs(sliced - whole) <= max(whole / 1000, 2)


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_the_rule_keeps_every_byte(text: str) -> None:
    """Whatever the text is, the rule's tokens are its bytes, and none is longer than six."""
    pieces = ByteRule().split(text)
    assert b"".join(pieces) == text.encode()
    assert all(len(piece) <= 6 for piece in pieces)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer whose package is missing is a configuration error that says what to do."""
    monkeypatch.setattr(tokenizers, "find_spec", lambda _: None)
    load_tokenizer.cache_clear()
    with pytest.raises(ConfigurationError, match=re.escape("qwen is not installed; install dualpool[tokenizers]")):
        load_tokenizer(TokenizerName.QWEN)


def test_without_packages_auto_is_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no tokenizer package is installed, tokens are counted by the rule over bytes."""
    monkeypatch.setattr(tokenizers, "find_spec", lambda _: None)
    load_tokenizer.cache_clear()
    assert load_tokenizer(TokenizerName.AUTO).name is TokenizerName.BYTES
    load_tokenizer.cache_clear()
