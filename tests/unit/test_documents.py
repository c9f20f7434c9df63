import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.errors import ConfigurationError
from extproc.documents import read_document

# Each name refers nine times to the one before; written out, there are 9^9 copies of the first.
NAMES = "abcdefghij"
LAUGHS = "a: &a [ha]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in pairwise(NAMES)
)
MERGED_LAUGHS = "a: &a {ha: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join(['*' + before] * 9)}]}}\n" for before, name in pairwise(NAMES)
)
NESTED_ALIASES = "a0: &a0 [1]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}]\n" for n in range(40))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"),
        ("yes", "yes"),
        ("0150", "0150"),
        ("-007", "-007"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("2026-01-31", "2026-01-31"),
        ("=", "="),
        ("'12'", "12"),
        ("0o17", 15),
        ("0x1F", 31),
        ("-12", -12),
        ("0", 0),
        ("0.5", 0.5),
        ("1e9", 1e9),
        (".inf", math.inf),
        ("True", True),
        ("false", False),
        ("~", None),
        ("", None),
        ("# nothing", None),
        ("{a: [1, x], b: {}}", {"a": [1, "x"], "b": {}}),
        ("a: &same {x: 1}\nb: {<<: *same, y: 2}", {"a": {"x": 1}, "b": {"x": 1, "y": 2}}),
        ("[&x 1, *x, &x 2, *x]", [1, 1, 2, 2]),
    ],
)
def test_words_and_numbers_are_those_of_yaml_1_2(text: str, value: object) -> None:
    """Only what YAML 1.2 defines as a number, boolean or null is one; all other plain words are strings."""
    assert value == read_document(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "more than 20,000 values, with aliases written out"),
        (MERGED_LAUGHS, "more than 20,000 values, with aliases written out"),
        (NESTED_ALIASES, "nested too deeply; at most 32 levels are allowed"),
        ("&a [*a]", "nested too deeply; .* no alias of itself"),
        ("&a {b: [*a]}", "nested too deeply; .* no alias of itself"),
        ("[" * 33 + "]" * 33, "nested too deeply; at most 32 levels are allowed"),
        ("- " * 5_000, "nested too deeply; at most 32 levels are allowed"),
        ("x" * 200_000, "200,000 characters given; at most 131,072 are allowed"),
        ("9" * 5_000, "not YAML: Exceeds the limit"),
        ("a: [1,\nb: 2", "not YAML: line 2, column 5: while parsing a flow sequence"),
        ("--- 1\n--- 2", "not YAML: line 2, column 1: expected a single document"),
        ("!!timestamp x", "not YAML: line 1, column 1: failed to construct timestamp"),
        ("!!python/object:os.system x", "not YAML: line 1, column 1: could not determine a constructor"),
        ("!!int x", "not YAML: invalid literal for int"),
        ("a: *b", "not YAML: line 1, column 4: found undefined alias 'b'"),
        ("a: {{ .Values.pool }}", "a list or mapping given as a key in line 1; a word is needed"),
        ("a: 1\nb: {c: 1, c: 2}", "^b.c: given twice, again in line 2; once is allowed$"),
        ("- {a: 1, 'a': 2}", r"^\[0\].a: given twice"),
        ("k" * 500 + ": 1\n" + "k" * 500 + ": 2", r"^'k+\.\.\.k+': given twice, again in line 2"),
        (r'a: ["\ud800"]', "half of a surrogate pair in line 1"),
        (r'{"\udfff": 1}', "half of a surrogate pair in line 1"),
        ("\0", "not YAML: unacceptable character"),
    ],
)
def test_unreadable_input_is_reported(text: str, said: str) -> None:
    """Invalid YAML, endless documents and repeated keys are rejected quickly, in one sentence."""
    with pytest.raises(ConfigurationError, match=said):
        read_document(text)


def test_repeated_keys_can_be_collected_with_other_faults() -> None:
    """If a list is passed for them, the document is read anyway."""
    repeated: list[str] = []
    assert {"a": 1, "b": [{"c": 2}]} == read_document("a: 1\nb: [{c: 2, c: 3}]\na: 4", repeated)
    assert ["b[0].c: given twice, again in line 2", "a: given twice, again in line 3"] == [
        sentence.partition(";")[0] for sentence in repeated
    ]


@given(st.text(alphabet="ab:-[]{},&*!'\"|>#%@`? \n\t0.1~<\\", max_size=60))
@settings(max_examples=400, deadline=None)
def test_any_text_is_read_or_rejected(text: str) -> None:
    """Any text is either a document or a ConfigurationError."""
    try:
        read_document(text)
    except ConfigurationError as error:
        assert error.sentences  # noqa: PT017  (either outcome is right)


@pytest.mark.parametrize("version", ["1.1", "1.2"])
@pytest.mark.parametrize("word", ["off", "yes", "1:30", "0150"])
def test_a_document_of_another_version_is_read_as_1_2(version: str, word: str) -> None:
    """A %YAML directive does not turn words into booleans or numbers as in YAML 1.1."""
    assert {"a": word} == read_document(f"%YAML {version}\n---\na: {word}\n")
