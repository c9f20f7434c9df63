"""Deciding before the end of the body, and base64 media in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.facts import Api
from extproc.core.placing.early import BLOCK_BYTES, EarlyRule, media_bytes


@given(
    before=st.text(max_size=50).map(str.encode),
    media=st.binary(max_size=200),
    form=st.sampled_from([b'"data:image/png;base64,%b"', b'"input_audio":{"data": "%b"}']),
)
def test_media_is_found_without_parsing(before: bytes, media: bytes, form: bytes) -> None:
    """Base64 in either JSON form is counted as media, and never more than there is."""
    encoded = media.hex().encode()
    body = before.replace(b'"', b"").replace(b";base64,", b"") + form % encoded
    assert len(encoded) == media_bytes(body)


@pytest.mark.parametrize(
    ("body", "media"),
    [
        (b'{"data": "data:image/png;base64,QUJD"}', len("data:image/png;base64,QUJD")),
        (b'{"data": "QUJD", "url": "data:image/png;base64,QUJDRA=="}', 4 + 8),
        (b'{"url": "data:image/png;base64,QUJD', 4),
        (b'{"data": "QUJD', 4),
        (b'{"data"', 0),
        (b'{"data": ', 0),
        (b'{"data": "QUJD", "data": "QU', 4 + 2),
        (b'{"url": ";base64,QUJD", "url": ";base64,QUJDRA=="}', 4 + 8),
        (b'{"text": "no media"}', 0),
        (b"", 0),
    ],
)
def test_media_in_both_forms_or_cut_off_is_counted_once(body: bytes, media: int) -> None:
    """A data: URL inside a "data" field is one item; of an unfinished item, the bytes received so far count."""
    assert media == media_bytes(body)


@given(st.lists(st.sampled_from([b'"data"', b";base64,", b'"', b": ", b"QUJD", b",", b"{"]), max_size=30))
def test_media_is_never_more_than_the_body(parts: list[bytes]) -> None:
    """Whatever the order of markers and quotes, the bytes of media are at most those of the body."""
    body = b"".join(parts)
    assert 0 <= media_bytes(body) <= len(body)


@given(
    parts=st.lists(
        st.sampled_from([b'"data"', b";base64,", b'"', b";", b";b", b";base64", b'"d', b"QUJD", b"{" * 200]),
        max_size=30,
    )
)
def test_media_is_what_a_sequential_search_finds(parts: list[bytes]) -> None:
    """However many incomplete markers there are, the result equals that of a sequential search."""
    body = b"".join(parts)
    assert _searched(body) == media_bytes(body)


@pytest.mark.parametrize("filler", [b"text " * 300, b";" * 5_000, b'"' * 5_000, b";b" * 5_000, b'"d' * 5_000])
def test_media_is_found_among_many_incomplete_markers(filler: bytes) -> None:
    """Text full of semicolons or quotes, such as code, does not hide media."""
    body = filler + b' "url": ";base64,QUJD" ' + filler.replace(b'"', b"'")
    assert 4 == media_bytes(body)


@pytest.mark.parametrize("before", range(BLOCK_BYTES - 12, BLOCK_BYTES + 2))
def test_media_is_found_if_a_marker_crosses_blocks(before: int) -> None:
    """A large body is searched in blocks; a marker that begins in one block and ends in the next is found."""
    assert 4 + BLOCK_BYTES == media_bytes(b"-" * before + b';base64,QUJD" "data": "' + b"A" * BLOCK_BYTES + b'"')


def _searched(body: bytes) -> int:
    """Return the bytes of media by the simplest possible search, for bodies with few of them."""
    inside: set[int] = set()
    for marker in (b";base64,", b'"data"'):
        at = body.find(marker)
        while at >= 0:
            start = at + len(marker)
            if marker == b'"data"':
                start = body.find(b'"', start) + 1 or len(body)
            end = body.find(b'"', start)
            end = len(body) if end < 0 else end
            inside.update(range(start, end))
            at = body.find(marker, end)
    return len(inside)


@given(body=st.binary(max_size=3_000))
def test_the_next_look_is_later_and_bounded(body: bytes) -> None:
    """Each next look is after more bytes have arrived, and a body at its cap is decided."""
    rule = EarlyRule(largest_optional_tokens=100, max_held_bytes=2_000)
    later = rule.next_look(Api.CHAT, body)
    assert later == 0 or len(body) < later <= 2_000
    assert later == 0 or len(body) < 2_000


@pytest.mark.parametrize("api", [Api.COMPLETIONS, Api.EMBEDDINGS, Api.RERANK, Api.SCORE, Api.GENERATE])
def test_many_small_prompts_are_not_mistaken_for_a_large_one(api: Api) -> None:
    """Bodies that may hold a list of prompts are awaited up to the cap on held bytes."""
    rule = EarlyRule(largest_optional_tokens=10, max_held_bytes=2_000)
    assert 2_000 == rule.first_look(api) == rule.next_look(api, b"x" * 1_999)
    assert 0 == rule.next_look(api, b"x" * 2_000)


@pytest.mark.parametrize(
    ("size", "look"),
    [
        (0, 1_600),
        (1_000, 1_600),
        (1_281, 1_601),
        (1_501, 1_876),
        (1_599, 1_998),
        (1_600, 0),
        (1_999, 0),
        (2_500, 0),
    ],
)
def test_a_body_without_media_is_looked_at_again_after_a_quarter_more(size: int, look: int) -> None:
    """The next look is when the text may be too long, but not before a quarter more has arrived."""
    rule = EarlyRule(largest_optional_tokens=100, max_held_bytes=10_000)
    assert (1_600, look) == (rule.first_look(Api.CHAT), rule.next_look(Api.CHAT, b"x" * size))


@pytest.mark.parametrize(
    ("text", "media", "look"),
    [
        (1_590, 10, 2_000),  # exactly as many bytes as would be too much text
        (1_000, 1_000, 2_600),
        (1_599, 401, 2_500),  # a quarter more than 2,000
        (1_600, 400, 0),
        (1_000, 1_500, 3_000),  # the cap on held bytes
    ],
)
def test_media_puts_off_the_next_look(text: int, media: int, look: int) -> None:
    """As many more bytes may arrive as there are bytes of media, up to the cap on held bytes."""
    rule = EarlyRule(largest_optional_tokens=100, max_held_bytes=3_000)
    body = b'"data:image/png;base64,'.rjust(text, b"x") + b"A" * media
    assert look == rule.next_look(Api.CHAT, body)


def test_at_most_512_items_of_each_form_are_found() -> None:
    """The work is bounded: further items count as text."""
    assert 512 * 4 == media_bytes(b'"url": ";base64,QUJD", ' * 600)
    assert 512 * 4 == media_bytes(b'"data": "QUJD", ' * 600)
    assert 511 * 4 == media_bytes(b'"data": "QUJD", ' * 511)


@pytest.mark.parametrize("body", [b'"data": "QUJD"', b';base64,QUJD"', b'"data":"QUJD', b'";base64,QUJD'])
def test_media_may_be_at_the_very_start(body: bytes) -> None:
    """A body may begin with the marker of media."""
    assert 4 == media_bytes(body)
