"""Bounding of the model and tenant names that clients send, so that they can serve as keys and labels."""

from hashlib import blake2b

__all__ = ["MAX_NAME_CHARS", "bounded_name"]

# Real names (paths, LoRA adapters) are shorter and are kept unchanged.
MAX_NAME_CHARS = 256
DIGEST_BYTES = 16
MAX_DIGESTED_CHARS = 8192


def bounded_name(name: str) -> str:
    """Return a name of at most MAX_NAME_CHARS characters.

    A longer one is truncated and ends in a digest of the full name, so that names that differ only at their end
    stay different. Above MAX_DIGESTED_CHARS only the length and both ends are digested, which bounds the work.
    """
    if len(name) <= MAX_NAME_CHARS:
        return name
    if len(name) > MAX_DIGESTED_CHARS:
        half = MAX_DIGESTED_CHARS // 2
        name = f"{name[:half]}{len(name)}{name[-half:]}"
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).hexdigest()
    return f"{name[: MAX_NAME_CHARS - len(digest) - 1]}~{digest}"
