from statistics import median
from typing import Any

from extproc.emulator.tokenizers import ByteRule
from extproc.emulator.work import Prompt, Sequence, Work
from extproc.emulator.writer import write_sequences


def write(prompt: str, room: int = 10_000, **fields: Any) -> tuple[Sequence, ...]:
    """Write the responses to a prompt, with a median length of 80 tokens."""
    work = Work(prompts=(Prompt((prompt,)),), **fields)
    return write_sequences(work, room, 80, ByteRule())


def test_the_same_prompt_gets_the_same_response() -> None:
    """Responses depend only on the prompt."""
    assert write("tell me") == write("tell me")


def test_lengths_vary_from_prompt_to_prompt() -> None:
    """Responses that end by themselves vary in length around the median."""
    lengths = [len(write(f"prompt {number}")[0].pieces) for number in range(200)]
    assert len(set(lengths)) > 80
    assert 60 <= median(lengths) <= 107


def test_texts_vary_from_prompt_to_prompt() -> None:
    """No two prompts get the same text."""
    assert len({write(f"prompt {number}")[0].text for number in range(100)}) == 100


def test_a_response_cut_by_its_limit_reports_length() -> None:
    """A response ends at its limit with exactly that many tokens, and reports the reason."""
    cut = write("tell me", max_tokens=2)[0]
    assert (len(cut.pieces), cut.finish_reason) == (2, "length")


def test_a_response_within_its_limit_reports_stop() -> None:
    """A response that ends by itself reports that."""
    assert write("tell me", max_tokens=5000)[0].finish_reason == "stop"


def test_the_context_limits_a_response_without_a_limit() -> None:
    """Without a declared limit, a response ends at the end of the context."""
    cut = write("tell me", room=3)[0]
    assert (len(cut.pieces), cut.finish_reason) == (3, "length")


def test_ignore_eos_goes_to_the_limit() -> None:
    """With ignore_eos a response is as long as its limit."""
    assert len(write("tell me", max_tokens=1000, ignore_eos=True)[0].pieces) == 1000


def test_min_tokens_lengthens_a_response() -> None:
    """With min_tokens a response has at least that many tokens."""
    assert len(write("tell me", min_tokens=900, max_tokens=1000)[0].pieces) >= 900


def test_each_choice_is_another_response() -> None:
    """The n choices all differ."""
    assert len({sequence.text for sequence in write("tell me", n=8)}) == 8


def test_pieces_are_whole_characters() -> None:
    """The pieces joined are the text, even if a token ends inside a character."""
    response = write("日本語の文章です " * 20, max_tokens=300, ignore_eos=True)[0]
    assert "\ufffd" not in response.text[:-1]
