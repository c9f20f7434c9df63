"""Settings of the estimators; the configuration file decodes into this object as it stands."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

__all__ = ["ByteClassSettings", "EmaSettings", "EstimatorSettings", "MediaTokens"]


Tokens = Annotated[int, Meta(ge=0)]
Keys = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(gt=0, lt=1)]


@dataclass(frozen=True, slots=True)
class MediaTokens:
    """What one item that is not text costs, in prompt tokens, until responses tell.

    Images by ImageSize. At Qwen2.5-VL's 28 x 28 pixels a token, 512 x 512 are 334, 1024 x 1024 are 1,337, full HD
    is 2,645, and the largest 16,384: four times `image_large`, which is as far as an estimate may go. Images whose
    size the body does not say may be any. Audio and video depend on their length, which the bytes do not tell, so
    their defaults are generous.
    """

    image_small: Tokens = 256
    image_medium: Tokens = 1_024
    image_large: Tokens = 4_096
    image_unknown: Tokens = 2_048
    audio: Tokens = 2_048
    video: Tokens = 8_192


@dataclass(frozen=True, slots=True)
class EmaSettings:
    """The paper's parameters: beta, gamma and the ratio to start from (bytes per token)."""

    decay: Share = 0.95
    margin_deviations: Annotated[float, Meta(ge=0)] = 1.0
    initial_bytes_per_token: Annotated[float, Meta(ge=1, le=16)] = 4.0


@dataclass(frozen=True, slots=True)
class ByteClassSettings:
    """The byte-class model: the share of prompts that may exceed their bound, and how fast a response fades.

    With `forgetting` lambda the memory is about 1 / (1 - lambda) responses of a model.
    """

    epsilon: Share = 0.01
    forgetting: Share = 0.9995


@dataclass(frozen=True, slots=True)
class EstimatorSettings:
    """How prompt and output tokens are estimated.

    Where the client declares no output limit, the byte-class estimator takes the length that a share
    `output_epsilon` of responses exceeds, and `default_output_tokens` until it has seen enough of them. With
    `cap_output_tokens` a declared limit counts only up to that length: more requests fit the short pool, and a
    share `output_epsilon` of them is cut there (or refused: vLLM answers 400 when prompt and max_tokens exceed its
    context, which a retry on the long pool repairs). A category with fewer than `young_observations` responses is
    always learned from. Keys come from clients: of more than `max_categories` (and `max_models`, whose state is
    larger) the least recently used is forgotten.
    """

    kind: Literal["byteclass", "ema"] = "byteclass"
    default_output_tokens: Tokens = 1_024
    young_observations: Annotated[int, Meta(ge=0)] = 50
    max_categories: Keys = 1_024
    max_models: Keys = 64
    output_epsilon: Annotated[float, Meta(ge=0.001, le=0.5)] = 0.01
    cap_output_tokens: bool = False
    media_tokens: MediaTokens = field(default_factory=MediaTokens)
    byteclass: ByteClassSettings = field(default_factory=ByteClassSettings)
    ema: EmaSettings = field(default_factory=EmaSettings)
