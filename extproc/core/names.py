"""Names that clients give, of models and tenants: bounded, so that they can be keys and labels."""

from hashlib import blake2b

__all__ = ["MAX_NAME_CHARS", "bounded_name"]

# Real ones (paths, LoRA adapters) stay below this, and are kept whole.
MAX_NAME_CHARS = 256
DIGEST_BYTES = 16
MAX_DIGESTED_CHARS = 8192


def bounded_name(name: str) -> str:
    """Return a name of at most MAX_NAME_CHARS characters.

    A longer one is cut and ends in a digest of the whole: names that differ only at their end stay different. Of
    what is too long for a name at all, the length and both ends are digested: the rest is not worth the time.
    """
    if len(name) <= MAX_NAME_CHARS:
        return name
    if len(name) > MAX_DIGESTED_CHARS:
        half = MAX_DIGESTED_CHARS // 2
        name = f"{name[:half]}{len(name)}{name[-half:]}"
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).hexdigest()
    return f"{name[: MAX_NAME_CHARS - len(digest) - 1]}~{digest}"
