"""Settings of the estimators; the configuration file decodes into this object as it stands."""

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["ByteClassSettings", "EmaSettings", "EstimatorSettings", "MediaTokens"]


@dataclass(frozen=True, slots=True)
class MediaTokens:
    """What one item that is not text costs, in prompt tokens.

    Vision models of the Qwen-VL and Llama families spend about 1,000 tokens on a one-megapixel image; audio and
    video depend on their length, which the bytes do not tell, so their defaults are generous.
    """

    image: int = 1_024
    audio: int = 2_048
    video: int = 8_192


@dataclass(frozen=True, slots=True)
class EmaSettings:
    """The paper's parameters: beta, gamma and the ratio to start from (bytes per token)."""

    decay: float = 0.95
    margin_deviations: float = 1.0
    initial_bytes_per_token: float = 4.0


@dataclass(frozen=True, slots=True)
class ByteClassSettings:
    """The byte-class model: the share of prompts that may exceed their bound, and how fast answers are forgotten.

    With `forgetting` lambda the memory is about 1 / (1 - lambda) answers of a model.
    """

    epsilon: float = 0.01
    forgetting: float = 0.9995


@dataclass(frozen=True, slots=True)
class EstimatorSettings:
    """How prompt and output tokens are estimated.

    Where the client declares no output limit, the byte-class estimator takes the length that a share
    `output_epsilon` of answers exceeds, and `default_output_tokens` until it has seen enough of them. With
    `cap_output_tokens` a declared limit counts only up to that length: more requests fit the short pool, and a
    share `output_epsilon` of them is cut there (or refused: vLLM answers 400 when prompt and max_tokens exceed its
    context, which a retry on the long pool repairs). A category with fewer than `young_observations` answers is
    always learned from. Keys come from clients: of more than `max_categories` (and `max_models`, whose state is
    larger) the least recently used is forgotten.
    """

    kind: Literal["byteclass", "ema"] = "byteclass"
    default_output_tokens: int = 1_024
    young_observations: int = 50
    max_categories: int = 1_024
    max_models: int = 64
    output_epsilon: float = 0.01
    cap_output_tokens: bool = False
    media_tokens: MediaTokens = field(default_factory=MediaTokens)
    byteclass: ByteClassSettings = field(default_factory=ByteClassSettings)
    ema: EmaSettings = field(default_factory=EmaSettings)
