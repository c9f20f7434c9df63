"""The settings of one emulated pool."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from extproc.core.errors import ConfigurationError

__all__ = ["Compression", "EmulatorSettings", "TokenizerName", "VllmVersion", "choice"]

E = TypeVar("E", bound=StrEnum)


class TokenizerName(StrEnum):
    """The tokenizer to count with; all but `bytes` need an optional package that contains their vocabulary."""

    AUTO = "auto"  # the first of the following that is installed
    QWEN = "qwen"
    CL100K = "cl100k"
    DEEPSEEK = "deepseek"
    BYTES = "bytes"  # a rule over bytes, see tokenizers.py


class VllmVersion(StrEnum):
    """The vLLM release to emulate; each member covers the releases from it up to the next member."""

    V0_20 = "0.20"  # prompt plus declared output must fit the context
    V0_32 = "0.32"  # an output that does not fit after its prompt is silently shortened


class Compression(StrEnum):
    """The content encoding of responses, used if the client accepts it."""

    NONE = "none"
    GZIP = "gzip"
    DEFLATE = "deflate"
    BROTLI = "br"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorSettings:
    """Settings of one emulated pool; lengths in tokens, speeds in tokens per second.

    All requests share `prefill_tokens_per_s`, while `decode_tokens_per_s` applies to each one; None means as fast
    as the machine allows. Requests that would exceed `max_num_seqs` sequences or `kv_cache_tokens` (None: enough
    for all sequences at full length) wait, as in vLLM. With `faults`, requests may ask for faults (faults.py).

    Raises ConfigurationError for values that no pool could have.
    """

    model: str
    max_model_len: int
    name: str = "pool"
    address: str = "127.0.0.1:0"
    tokenizer: TokenizerName = TokenizerName.AUTO
    prefill_tokens_per_s: float | None = None
    decode_tokens_per_s: float | None = None
    max_num_seqs: int = 256
    kv_cache_tokens: int | None = None
    median_completion_tokens: int = 80
    compression: Compression = Compression.NONE
    vllm_version: VllmVersion = VllmVersion.V0_32
    faults: bool = False

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigurationError("model: a name is needed, '' given")
        counts = ("max_model_len", "max_num_seqs", "median_completion_tokens")
        speeds = ("prefill_tokens_per_s", "decode_tokens_per_s")
        for field in (*counts, *speeds):
            value = getattr(self, field)
            if value is not None and not value > 0:
                raise ConfigurationError(f"{field}: {value} must be above 0")
        if self.kv_cache_tokens is not None and self.kv_cache_tokens < self.max_model_len:
            raise ConfigurationError(
                f"kv_cache_tokens: {self.kv_cache_tokens} must hold one sequence of max_model_len, "
                f"{self.max_model_len} tokens"
            )
        self.host_and_port()

    @property
    def kv_capacity(self) -> int:
        """The number of tokens that all running sequences together may hold."""
        return self.kv_cache_tokens or self.max_num_seqs * self.max_model_len

    def host_and_port(self) -> tuple[str, int]:
        """Return the host and the port of `address`. Raises ConfigurationError."""
        host, colon, port = self.address.rpartition(":")
        if not colon or not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004
            raise ConfigurationError(f"address: {self.address!r} must be HOST:PORT, with port 0 for any free one")
        return host.strip("[]"), int(port)


def choice(kind: type[E], field: str, value: str) -> E:
    """Return the enum member with this value. Raises ConfigurationError that lists the allowed values."""
    try:
        return kind(value)
    except ValueError:
        raise ConfigurationError(f"{field}: {value!r} is not one of {', '.join(kind)}") from None
