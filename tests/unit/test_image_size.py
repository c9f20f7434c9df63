"""The size of an image from its JSON: real headers, every way to encode them, and garbage."""

import json
import struct
import zlib
from base64 import b64encode
from time import thread_time_ns

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.apis.image_size import image_pixels
from extproc.core.apis.image_size import size_of as size_of_pixels
from extproc.core.apis.prompt import Prompt
from extproc.core.facts import ImageSize


def png(width: int, height: int) -> bytes:
    """Return a complete grey PNG with one bit per pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(((width + 7) // 8 + 1) * height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg(width: int, height: int, before: int = 0, marker: int = 0xC0, padding: bytes = b"") -> bytes:
    """Return the headers of a JPEG, with `before` bytes of Exif data before the frame header."""

    def segment(kind: int, data: bytes) -> bytes:
        return padding + struct.pack(">BBH", 0xFF, kind, len(data) + 2) + data

    exif = b"".join(
        segment(0xE1, bytes(range(256)) * (size // 256)) for size in _pieces(before, 65_280)
    )  # bytes that encode to every base64 character
    frame = segment(marker, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0")
    tables = segment(0xDB, bytes(65)) + segment(0xC4, bytes(28))
    app0 = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
    return b"\xff\xd8" + app0 + exif + tables + frame + bytes(2_000) + b"\xff\xd9"


def _pieces(total: int, largest: int) -> list[int]:
    return [min(largest, total - start) for start in range(0, total, largest)]


def gif(width: int, height: int, version: bytes = b"GIF89a") -> bytes:
    """Return a GIF of one empty frame."""
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\2\0"
    return version + struct.pack("<HHBBB", width, height, 0, 0, 0) + frame + b";"


def webp(width: int, height: int, kind: bytes) -> bytes:
    """Return the headers of a WebP: lossy (VP8), lossless (VP8L) or extended (VP8X)."""
    if kind == b"VP8 ":
        data = b"\x30\1\0\x9d\1\x2a" + struct.pack("<HH", width | 0x4000, height | 0x8000)  # with scaling bits
    elif kind == b"VP8L":
        data = b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14 | 1 << 28)
    else:
        data = b"\x10\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunk = kind + struct.pack("<I", len(data)) + data + bytes(40)
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


def avif(width: int, height: int, before: int = 0) -> bytes:
    """Return the boxes of an AVIF or HEIC in tiles of 512 x 512 and with a thumbnail, after `before` bytes."""

    def ispe(width: int, height: int) -> bytes:
        return struct.pack(">I4sIII", 20, b"ispe", 0, width, height)

    sizes = [(min(width, 512), min(height, 512)), (width, height), (1, 1)]
    return b"\0\0\0\x1cftypavif" + bytes(16 + before) + b"".join(ispe(*size) for size in sizes) + bytes(1_000)


def tiff(width: int, height: int, order: str = "<", kind: str = "H", before: int = 0) -> bytes:
    """Return a TIFF without an image, in either byte order, with the directory after `before` bytes."""
    number = (
        struct.pack(f"{order}{kind}", width).ljust(4, b"\0"),
        struct.pack(f"{order}{kind}", height).ljust(4, b"\0"),
    )
    code = 3 if kind == "H" else 4
    entries = [(254, 4, b"\0" * 4), (256, code, number[0]), (257, code, number[1]), (258, 3, b"\1\0\0\0")]
    directory = struct.pack(f"{order}H", len(entries))
    directory += b"".join(struct.pack(f"{order}HHI", tag, what, 1) + value for tag, what, value in entries)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}I", 8 + before) + bytes(before) + directory + bytes(4)


def bmp(width: int, height: int) -> bytes:
    """Return the header of a BMP."""
    return b"BM" + bytes(12) + struct.pack("<Iii", 40, width, height) + bytes(60)


def url_of(image: bytes) -> str:
    """Return a data: URL."""
    return "data:image/any;base64," + b64encode(image).decode()


def raw_url(image: bytes) -> msgspec.Raw:
    """Return a data: URL as a JSON string."""
    return msgspec.Raw(json.dumps(url_of(image)).encode())


def size_of_source(source: msgspec.Raw) -> ImageSize:
    """Return the size class of an image from its JSON."""
    return size_of_pixels(image_pixels(source))


def size_of(source: object) -> ImageSize:
    """Return the size class of an image from the value of its field."""
    return size_of_source(msgspec.Raw(json.dumps(source).encode()))


SIZES = [
    (1, 1, ImageSize.SMALL),
    (512, 512, ImageSize.SMALL),
    (513, 512, ImageSize.MEDIUM),
    (1024, 1024, ImageSize.MEDIUM),
    (1025, 1024, ImageSize.LARGE),
    (4000, 3000, ImageSize.LARGE),
]


@pytest.mark.parametrize(("width", "height", "expected"), SIZES)
def test_every_format_is_classed_by_its_pixels(width: int, height: int, expected: ImageSize) -> None:
    """Images of the same size have the same class, in every format and variant."""
    images = [png(width, height), gif(width, height), gif(width, height, b"GIF87a")]
    images += [jpeg(width, height, marker=marker) for marker in (0xC0, 0xC1, 0xC2, 0xC9)]
    images += [webp(width, height, kind) for kind in (b"VP8 ", b"VP8L", b"VP8X")]
    images += [avif(width, height, before) for before in (0, 2_500)]
    images += [tiff(width, height, order, kind, 3_001) for order in "<>" for kind in "HI"]
    images += [bmp(width, height), bmp(width, -height)]
    assert [expected] * len(images) == [size_of(url_of(image)) for image in images]


@pytest.mark.parametrize(("width", "height"), [(333, 1_111), (334, 1_112), (4_095, 1), (1, 4_095)])
def test_the_size_of_every_format_is_exact(width: int, height: int) -> None:
    """Width and height are neither rounded nor swapped."""
    images = [png(width, height), gif(width, height), jpeg(width, height)]
    images += [webp(width, height, kind) for kind in (b"VP8 ", b"VP8L", b"VP8X")]
    images += [avif(width, height), tiff(width, height), bmp(width, height)]
    assert [width * height] * 9 == [image_pixels(raw_url(image)) for image in images]


@pytest.mark.parametrize(
    "source",
    [
        url_of(png(800, 800)),
        {"url": url_of(png(800, 800))},
        {"detail": "low", "url": url_of(png(800, 800))},
        {"url": url_of(png(800, 800)), "detail": "auto"},
        {"type": "url", "url": url_of(png(800, 800))},
        {"type": "base64", "media_type": "image/png", "data": b64encode(png(800, 800)).decode()},
        {"data": b64encode(png(800, 800)).decode(), "media_type": "image/png", "type": "base64"},
    ],
)
def test_an_image_is_found_wherever_an_api_puts_it(source: object) -> None:
    """It may be a URL, an object with other keys in any order, or Anthropic's source; indented or not."""
    indented = size_of_source(msgspec.Raw(json.dumps(source, indent=2, separators=(" ,", " : ")).encode()))
    assert (ImageSize.MEDIUM, ImageSize.MEDIUM) == (size_of(source), indented)


@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"null",
        b"{}",
        b'"https://example.org/cat.png"',
        b'{"url":"https://example.org/?a=;base64,iVBORw0KGgo"}',
        b'{"type":"file","file_id":"file-1"}',
        b'{"url":"data:image/svg+xml,%3Csvg/%3E"}',
    ],
)
def test_images_outside_the_body_have_unknown_size(source: bytes) -> None:
    """Links, file ids and data that is not base64 have a class of their own."""
    assert size_of_source(msgspec.Raw(source)) is ImageSize.UNKNOWN


@pytest.mark.parametrize("escape", ["\\/", "\\u002F", "\\u002f"])
def test_escaped_base64_is_read_too(escape: str) -> None:
    r"""JSON encoders that escape slashes (PHP) do not hide the size, even of a JPEG with some Exif data."""
    for image in (png(800, 800), gif(800, 800), webp(800, 800, b"VP8X"), jpeg(800, 800, before=2_304)):
        text = json.dumps(url_of(image)).replace("/", escape)
        assert size_of_source(msgspec.Raw(text.encode())) is ImageSize.MEDIUM


@pytest.mark.parametrize("shift", range(6))
def test_an_escape_may_be_cut_anywhere(shift: int) -> None:
    """Where in an escape the window ends does not matter."""
    image = png(800, 800)
    text = b64encode(image + bytes(-len(image) % 3)).decode() + "/" * shift + "\\u002f" * 1_000
    assert size_of_source(msgspec.Raw(f'"data:image/png;base64,{text}"'.encode())) is ImageSize.MEDIUM


@pytest.mark.parametrize("wrong", [b"\\x", b"\\ud800/", b"\xff\\/"])
def test_the_size_behind_an_escape_that_cannot_be_decoded_is_guessed(wrong: bytes) -> None:
    """A text that is no JSON, or not UTF-8, is no error: its length is what counts, as without a readable size."""
    start = b64encode(png(800, 800))[:40]
    assert size_of_source(msgspec.Raw(b'"data:image/png;base64,' + start + wrong + b'"')) is ImageSize.SMALL


def test_base64_in_lines_is_read_too() -> None:
    """Line breaks within base64, as in MIME, do not hide the size."""
    text = b64encode(jpeg(800, 800, before=2_560)).decode()
    lines = "\r\n".join(text[start : start + 76] for start in range(0, len(text), 76))
    assert size_of("data:image/jpeg;base64," + lines) is ImageSize.MEDIUM


@pytest.mark.parametrize("broken", ["/9j/=4AA", "/9j/4A=A="])
def test_base64_with_padding_in_the_middle_is_guessed(broken: str) -> None:
    """If its whole groups of four characters cannot be decoded either, the image is classed by its length."""
    assert size_of("data:image/jpeg;base64," + broken) is ImageSize.SMALL


@pytest.mark.parametrize("before", [256, 65_280, 500_000])
def test_a_frame_header_is_found_behind_any_amount_of_metadata(before: int) -> None:
    """A small JPEG with large Exif data or colour profiles is still small."""
    assert size_of(url_of(jpeg(64, 64, before))) is ImageSize.SMALL


def test_fill_bytes_between_segments_are_stepped_over() -> None:
    """ITU-T T.81 allows any number of FF bytes before a marker."""
    assert size_of(url_of(jpeg(64, 64, 65_280, padding=b"\xff"))) is ImageSize.SMALL


@pytest.mark.parametrize(
    ("encoded_bytes", "expected"),
    [(60_000, ImageSize.SMALL), (200_000, ImageSize.MEDIUM), (400_000, ImageSize.LARGE)],
)
@pytest.mark.parametrize("start", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBPALPH"])
def test_without_a_readable_size_the_length_decides(start: bytes, encoded_bytes: int, expected: ImageSize) -> None:
    """Images with unreadable headers are classed at two bits per pixel."""
    assert expected == size_of(url_of(start + bytes(encoded_bytes)))


@pytest.mark.parametrize("start", [b"\0\0\0\x1cftypavif", b"II*\0\xff\xff\0\0", b"\0\0\1\0", b"%!PS"])
@pytest.mark.parametrize(
    ("encoded_bytes", "expected"),
    [(100, ImageSize.UNKNOWN), (200_000, ImageSize.UNKNOWN), (400_000, ImageSize.LARGE)],
)
def test_the_bytes_of_other_formats_do_not_show_that_an_image_is_small(
    start: bytes, encoded_bytes: int, expected: ImageSize
) -> None:
    """They may compress better than photographs, a fax a thousand times: only many bytes say something."""
    assert expected == size_of(url_of(start + b"\xaa" * encoded_bytes))


def test_the_length_decides_after_too_many_segments() -> None:
    """The number of segments read is bounded: a JPEG of thousands of empty ones is classed by its length."""
    assert size_of(url_of(b"\xff\xd8" + b"\xff\xe1\0\2" * 150_000)) is ImageSize.LARGE


def test_at_most_14_segments_of_a_jpeg_are_read() -> None:
    """A frame header after 13 segments is read; after 14 the image is classed by its length."""
    comments = [b"\xff\xfe\0\2" * count for count in (13, 14)]
    frame = jpeg(800, 800)
    frame = frame[frame.index(b"\xff\xc0") :]
    read, not_read = (image_pixels(raw_url(b"\xff\xd8" + comment + frame)) for comment in comments)
    assert (800 * 800, True) == (read, not_read < 10_000)


def test_an_empty_image_is_small_and_does_not_read_the_next_value() -> None:
    """An empty image has the smallest size, not an unknown one; the JSON after it is not read."""
    assert 1 == image_pixels(msgspec.Raw(b'"data:image/png;base64,'))
    follows = b'{"data":"","" : "%b"}' % b64encode(png(800, 800))
    assert 0 < image_pixels(msgspec.Raw(follows)) < 10_000


@pytest.mark.parametrize("cut", [24, 25, 26, 27, 30, 31, 33])
def test_a_size_is_read_even_if_the_image_ends_right_after_it(cut: int) -> None:
    """This includes base64 without padding, and with an incomplete last group."""
    url = url_of(png(800, 800)[:cut]).rstrip("=")
    assert 800 * 800 == image_pixels(msgspec.Raw(json.dumps(url).encode()))


SIGNATURE_BYTES = 10  # base64 without padding loses up to two
GUESSED = (png(30, 20), jpeg(30, 20), gif(30, 20), webp(30, 20, b"VP8 "), webp(30, 20, b"VP8L"))
IMAGES = (
    *GUESSED,
    *(avif(30, 20), tiff(30, 20), tiff(30, 20, ">", "I"), bmp(30, 20)),
)


@settings(max_examples=150, deadline=None)
@given(
    start=st.sampled_from(
        (b"", b'"data:image/png;base64,', b'{"data":"', b'{"url": "data:;base64,', b'"data:image\\/png;base64,')
    ),
    body=st.one_of(
        st.binary(max_size=400),
        st.binary(max_size=300).map(b64encode),
        st.text("AQ/+=\\nu0f \"'9jgé", max_size=200).map(str.encode),
        st.tuples(st.sampled_from(IMAGES), st.integers(0, 60), st.binary(max_size=40)).map(
            lambda parts: b64encode(parts[0][: parts[1]] + parts[2])
        ),
    ),
    end=st.sampled_from((b"", b'"', b'","detail":"low"}')),
)
def test_arbitrary_bytes_raise_no_error(start: bytes, body: bytes, end: bytes) -> None:
    """Whatever is in the place of an image gets a class and never raises an exception."""
    assert size_of_source(msgspec.Raw(start + body + end)) in ImageSize


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(IMAGES), st.data())
def test_a_header_cut_anywhere_is_small(image: bytes, data: st.DataObject) -> None:
    """Wherever a tiny image is cut, with or without base64 padding, it is small, or else unknown by its format."""
    cut = data.draw(st.integers(0, len(image)))
    url = url_of(image[:cut])
    allowed = (
        {ImageSize.SMALL}
        if not cut or (image in GUESSED and cut >= SIGNATURE_BYTES)
        else {ImageSize.SMALL, ImageSize.UNKNOWN}
    )
    assert allowed >= {size_of(url), size_of(url.rstrip("="))}


def test_the_time_is_bounded_whatever_the_length() -> None:
    """An image of 8 MB, or a JPEG whose frame header never comes, takes no longer than a small image."""
    far = b"\xff\xd8" + (b"\xff\xe1\xff\xff" + bytes(65_533)) * 120
    escaped = json.dumps(url_of(jpeg(800, 800, before=6_000_000))).replace("/", "\\/")
    for text in (json.dumps(url_of(far)), json.dumps(url_of(png(99, 99) + bytes(8 << 20))), escaped):
        raw = msgspec.Raw(text.encode())
        times = []
        for _ in range(50):
            start = thread_time_ns()
            size_of_source(raw)
            times.append(thread_time_ns() - start)
        assert min(times) < 200_000  # ten times the target, for slow machines; decoding all takes milliseconds


def test_the_area_of_images_is_in_patches() -> None:
    """An image counts as its number of 28 x 28 patches, at most 16,384; one of unknown size counts as none."""
    prompt = Prompt()
    prompt.add_image(msgspec.Raw(json.dumps(url_of(png(280, 560))).encode()))
    prompt.add_image(msgspec.Raw(b'"https://example.com/a.png"'))
    assert 200 == prompt.media().image_patches
    prompt.add_image(msgspec.Raw(json.dumps(url_of(png(8_000, 8_000))).encode()))
    assert 200 + 16_384 == prompt.media().image_patches


@pytest.mark.parametrize(("before", "found"), [(500, True), (1_100, False)])
def test_only_the_beginning_of_a_source_is_searched_for_an_image(before: int, found: bool) -> None:  # noqa: FBT001
    """However long a source without an image is, looking for one takes little time."""
    source = {"media_type": "x" * before, "data": b64encode(png(32, 16)).decode()}
    pixels = image_pixels(msgspec.Raw(msgspec.json.encode(source)))
    assert (32 * 16 if found else 0) == pixels
