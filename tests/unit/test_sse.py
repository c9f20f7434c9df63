import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.reading.sse import SseEvent, SseParser

CAP = 1 << 16


def parse(*pieces: bytes, cap: int = CAP) -> list[tuple[bytes, bytes]]:
    """Return the (event, data) pairs of a stream that arrives in pieces."""
    parser = SseParser(cap)
    return [(event.event, event.data) for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"", []),
        (b"data: a\n\n", [(b"", b"a")]),
        (b"data:a\n\n", [(b"", b"a")]),
        (b"data:  a \n\n", [(b"", b" a ")]),
        (b"data: a: b\n\n", [(b"", b"a: b")]),
        (b"data: a\n\ndata: b\n\n", [(b"", b"a"), (b"", b"b")]),
        (b"data: a\ndata: b\n\n", [(b"", b"a\nb")]),
        (b"data:  a\ndata:   b\n\n", [(b"", b" a\n  b")]),
        (b"event:  ping\ndata:  {}\n\n", [(b" ping", b" {}")]),
        (b"event: ping \ndata:\t{}\n\n", [(b"ping ", b"\t{}")]),
        (b"data: a\ndata\ndata: b\n\n", [(b"", b"a\n\nb")]),
        (b"data\n\n", [(b"", b"")]),
        (b"data:\n\n", [(b"", b"")]),
        (b"event: ping\ndata: {}\n\n", [(b"ping", b"{}")]),
        (b"data: {}\nevent:ping\n\n", [(b"ping", b"{}")]),
        (b"event: ping\n\ndata: a\n\n", [(b"", b"a")]),
        (b": comment\n\n:\n\ndata: a\n\n", [(b"", b"a")]),
        (b": comment\ndata: a\n: comment\n\n", [(b"", b"a")]),
        (b"id: 1\nretry: 5\nunknown: x\ndata: a\n\n", [(b"", b"a")]),
        (b"dataset: a\n\n data: a\n\n", []),
        (b"\n\n\n\ndata: a\n\n\n\n\ndata: b\n\n", [(b"", b"a"), (b"", b"b")]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [(b"", b"a"), (b"", b"b")]),
        (b"data: a\r\rdata: b\r\r", [(b"", b"a"), (b"", b"b")]),
        (b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\n", [(b"", b"a"), (b"", b"b"), (b"", b"c")]),
        (b"\xef\xbb\xbfdata: a\n\n", [(b"", b"a")]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [(b"", b"a")]),
        (b"\n\n\xef\xbb\xbfdata: a\n\n", []),
        (b"\n\xef\xbb\xbfdata: a\n\n", []),
        (b"data: a\n", []),
        (b"data: a\n\ndata: [DONE]", [(b"", b"a")]),
    ],
)
def test_streams(stream: bytes, events: list[tuple[bytes, bytes]]) -> None:
    """A stream is parsed as the standard says, whether it arrives in one piece or byte by byte."""
    assert parse(stream) == events
    assert parse(*(stream[i : i + 1] for i in range(len(stream)))) == events


def test_line_end_split_between_pieces() -> None:
    """A CRLF split over two pieces is one line end, and an empty piece in between changes nothing."""
    assert parse(b"data: a\r", b"\ndata: b\r", b"", b"\n\r", b"\n") == [(b"", b"a\nb")]
    assert parse(b"data: a\r", b"", b"\ndata: b\n\n") == [(b"", b"a\nb")]
    assert parse(b"data: a\r", b"", b"", b"\n", b"", b"data: b\n\n") == [(b"", b"a\nb")]


@pytest.mark.parametrize(
    ("pieces", "events"),
    [
        ((b"data: a\n\nd", b"ata: b\n\n"), [(b"", b"a"), (b"", b"b")]),
        ((b"data: a\nd", b"ata: b\n\n"), [(b"", b"a\nb")]),
        ((b"data: a\n\n", b"\xef\xbb\xbfdata: b\n\n"), [(b"", b"a")]),
        ((b"data: a\n\n\n", b"data: b\n\n"), [(b"", b"a"), (b"", b"b")]),
        ((b"data: a\n", b"\ndata: b\n\n"), [(b"", b"a"), (b"", b"b")]),
    ],
)
def test_a_piece_that_is_almost_one_event(pieces: tuple[bytes, ...], events: list[tuple[bytes, bytes]]) -> None:
    """One byte more or less than an event, or a misplaced byte order mark, is parsed as the standard says."""
    assert events == parse(*pieces)


def test_what_came_before_does_not_count_towards_the_cap() -> None:
    """The event that a piece ends does not count towards the one that it begins."""
    pieces = (b"data: a\n\ndata: ", b"x" * 194, b"\n\n")
    assert [(b"", b"a"), (b"", b"x" * 194)] == parse(*pieces, cap=200)


def test_the_end_of_a_stream_returns_its_last_event_once() -> None:
    """An event without its empty line is returned by `finish`, and only once."""
    parser = SseParser(CAP)
    assert [] == parser.feed(b"data: a\n")
    assert [SseEvent(b"", b"a")] == parser.finish()
    assert [] == parser.finish()


def test_events_are_returned_as_soon_as_they_are_complete() -> None:
    """An event is not held back until more bytes arrive."""
    parser = SseParser(CAP)
    assert parser.feed(b"data: a\n") == []
    assert parser.feed(b"\ndata: b") == [SseEvent(b"", b"a")]
    assert parser.feed(b"\r\r") == [SseEvent(b"", b"b")]


LINES = st.lists(
    st.sampled_from([b"", b"", b"data: a", b"data:b", b"data", b"event: x", b": c", b"id: 7", b"\xef\xbb\xbf"]),
    max_size=20,
)
LINE_ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])


def by_the_standard(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    """Interpret lines one at a time, following the text of the standard."""
    events: list[tuple[bytes, bytes]] = []
    name, data = b"", b""
    for line in lines:
        if not line:
            if data:
                events.append((name, data.removesuffix(b"\n")))
            name, data = b"", b""
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data += value + b"\n"
        elif field == b"event":
            name = value
    return events


@given(lines=LINES, data=st.data())
def test_any_chunking_gives_the_same_events(lines: list[bytes], data: st.DataObject) -> None:
    """For any line ends and any cuts, the events are those of the standard."""
    stream = b"".join(line + data.draw(LINE_ENDS) for line in lines)
    # A CR followed by an empty line's LF is a single line end, so the expected lines are split from the bytes.
    seen = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").removeprefix(b"\xef\xbb\xbf").split(b"\n")[:-1]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert parse(*pieces) == by_the_standard(seen)


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b"\r\n\r\n"])
def test_events_over_the_cap(size: int, end: bytes) -> None:
    """An event that exceeds the cap is refused, complete or not and however it was cut."""
    stream = b"data: first\n\ndata: " + b"x" * 195 + end  # 201 bytes
    pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
    with pytest.raises(ResponseNotUnderstood) as caught:
        parse(*pieces, cap=200)
    assert caught.value.fault == ResponseFault.TOO_LARGE


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_events_at_the_cap(size: int) -> None:
    """An event exactly at the cap passes, and many of them do not add up."""
    stream = (b"data: " + b"x" * 194 + b"\r\n\r\n") * 50
    pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
    assert parse(*pieces, cap=200) == [(b"", b"x" * 194)] * 50


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
def test_the_cap_of_one_event_in_one_piece(line_end: bytes) -> None:
    """Exactly as many bytes as allowed pass, and one more is refused; line ends do not count."""
    assert parse(b"data: " + b"x" * 194 + 2 * line_end, cap=200) == [(b"", b"x" * 194)]
    with pytest.raises(ResponseNotUnderstood):
        parse(b"data: " + b"x" * 195 + 2 * line_end, cap=200)


def test_blank_lines_are_not_kept() -> None:
    """A server that keeps the connection alive with blank lines or comments does not fill memory."""
    parser = SseParser(100)
    for _ in range(1000):
        assert parser.feed(b"\n") == parser.feed(b": still there\n\n") == []
