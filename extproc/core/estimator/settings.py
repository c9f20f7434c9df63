"""Settings of the estimators; the configuration file decodes into this object as it stands."""

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["EmaSettings", "EstimatorSettings", "MediaTokens"]


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
class EstimatorSettings:
    """How prompt and output tokens are estimated.

    `default_output_tokens` is used where the client declares no limit. A category with fewer than
    `young_observations` answers is always learned from. Keys come from clients: of more than `max_categories`
    the least recently used is forgotten.
    """

    kind: Literal["ema"] = "ema"
    default_output_tokens: int = 1_024
    young_observations: int = 50
    max_categories: int = 1_024
    media_tokens: MediaTokens = field(default_factory=MediaTokens)
    ema: EmaSettings = field(default_factory=EmaSettings)
