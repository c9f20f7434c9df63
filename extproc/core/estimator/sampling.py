"""Sampling of long texts in evenly spread blocks, which bounds the cost of looking at them."""

__all__ = ["SAMPLE_BYTES", "blocks_of", "sample"]

SAMPLE_BYTES = 32 * 1024
SAMPLE_BLOCK_BYTES = 256  # many small blocks cover more parts of a text than a few large ones


def sample(text: bytes) -> bytes:
    """Return evenly spread blocks, SAMPLE_BYTES in all, of a text longer than that."""
    return blocks_of(text, SAMPLE_BYTES // SAMPLE_BLOCK_BYTES, SAMPLE_BLOCK_BYTES)


def blocks_of(text: bytes, blocks: int, block_bytes: int) -> bytes:
    """Return the bytes of so many evenly spread blocks; the text must be longer than they are."""
    step = (len(text) - block_bytes) / (blocks - 1)
    starts = (int(i * step) for i in range(blocks))
    return b"".join([text[start : start + block_bytes] for start in starts])
