"""The text of an error: what is wrong with what, within a length that terminals and logs can take."""

import pytest

from extproc.core.errors import (
    BodyFault,
    BodyNotUnderstood,
    ConfigurationError,
    ResponseFault,
    ResponseNotUnderstood,
    shown,
)

PRINTED_BYTES = 2_000
SENTENCE_BYTES = 480


def test_a_fault_is_printed_with_its_detail_if_there_is_one() -> None:
    """The fault comes first, under the name that metrics use."""
    assert "not_json" == str(BodyNotUnderstood(BodyFault.NOT_JSON))
    assert "not_json: at byte 7" == str(BodyNotUnderstood(BodyFault.NOT_JSON, "at byte 7"))
    assert "status" == str(ResponseNotUnderstood(ResponseFault.STATUS))
    assert "status: 500" == str(ResponseNotUnderstood(ResponseFault.STATUS, "500"))


def test_one_sentence_is_a_line_and_several_are_a_list() -> None:
    """They are preceded by the file that they belong to, if it is known."""
    assert "no pools" == str(ConfigurationError("no pools"))
    assert "a.yaml: no pools" == str(ConfigurationError("no pools", source="a.yaml"))
    assert "2 errors\n  one\n  two" == str(ConfigurationError("one", "two"))
    assert "a.yaml: 2 errors\n  one\n  two" == str(ConfigurationError("one", "two", source="a.yaml"))


@pytest.mark.parametrize("letter", ["x", "é", "語", "😀"])
def test_a_long_sentence_ends_in_dots(letter: str) -> None:
    """Up to 480 bytes are printed unchanged; of more, as many whole characters as fit before the dots."""
    size = len(letter.encode())
    whole = letter * (SENTENCE_BYTES // size)
    assert whole == str(ConfigurationError(whole))
    assert letter * ((SENTENCE_BYTES - 3) // size) + "..." == str(ConfigurationError(whole + letter))


def test_control_characters_and_line_ends_are_spaces() -> None:
    """An error is one line, whatever the input was."""
    assert "a b c d" == str(ConfigurationError("a\nb\x1bc\td"))


@pytest.mark.parametrize("source", ["", "router.yaml"])
def test_as_many_sentences_are_printed_as_fit(source: str) -> None:
    """All lines, and the number of those left out, fit in 2,000 bytes; there is always room for that number."""
    for size in range(1, SENTENCE_BYTES + 1):
        head = f"{source}: 1000 errors" if source else "1000 errors"
        fitting = (PRINTED_BYTES - len(head) - len("\n  and 999,999 more")) // (len("\n  ") + size)
        printed = str(ConfigurationError(*["x" * size] * 1000, source=source))
        assert [head, *["x" * size] * fitting, f"and {1000 - fitting:,} more"] == printed.split("\n  ")
        assert len(printed) <= PRINTED_BYTES


def test_the_lines_for_a_log_are_bounded_as_well() -> None:
    """Without a heading, the lines may take all of the 2,000 bytes."""
    fitting = (PRINTED_BYTES - len("\n  and 999,999 more")) // (len("\n  ") + 100)
    lines = ConfigurationError(*["x" * 100] * 1000, source="router.yaml").lines()
    assert ["x" * 100] * fitting + [f"and {1000 - fitting} more"] == lines
    assert ["one", "two"] == ConfigurationError("one", "two").lines()
    assert ["x" * (SENTENCE_BYTES - 3) + "..."] == ConfigurationError("x" * 5000).lines()


@pytest.mark.parametrize(("value", "printed"), [("a" * 78, f"'{'a' * 78}'"), (2**128 - 1, str(2**128 - 1))])
def test_values_of_up_to_80_characters_are_shown_whole(value: object, printed: str) -> None:
    """This includes numbers as large as a counter gets."""
    assert printed == shown(value)


def test_longer_values_are_shown_in_part() -> None:
    """Texts are shown by their beginning and end, numbers only by their size, nested values to three levels."""
    assert 80 == len(shown("a" * 79)) == len(shown(b"a" * 79))
    assert shown("a" * 500 + "z").endswith("az'")
    assert "a number of 129 bits" == shown(2**128)
    assert "[[[1]]]" == shown([[[1]]])
    assert "[[[[...]]]]" == shown([[[[1]]]])


def test_a_password_is_not_shown_however_long_the_value() -> None:
    """User name and password of a URL are left out."""
    assert "'redis://***@host/0'" == shown("redis://user:secret@host/0")
    assert "secret" not in shown("redis://user:secret@host/" + "0" * 1000)
