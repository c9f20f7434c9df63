"""Settings of the estimators; the configuration file is decoded directly into these objects."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

__all__ = ["ByteClassSettings", "EmaSettings", "EstimatorSettings", "MediaTokens"]


Tokens = Annotated[int, Meta(ge=0)]
Keys = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(gt=0, lt=1)]
Glob = Annotated[str, Meta(min_length=1, max_length=256, extra={"allowed": "globs of models"})]
File = Annotated[str, Meta(min_length=1, extra={"allowed": "files' names"})]


@dataclass(frozen=True, slots=True)
class MediaTokens:
    """Prompt tokens of one item that is not text, used until responses show what it costs.

    At Qwen2.5-VL's 28 x 28 pixels a token, an image of 512 x 512 is 334 tokens, 1024 x 1024 are 1,337, full HD is
    2,645, and the largest 16,384: four times `image_large`, the most that an estimate allows.
    """

    image_small: Tokens = 256
    """An image of up to 512 x 512 pixels."""
    image_medium: Tokens = 1_024
    """An image of up to 1024 x 1024 pixels."""
    image_large: Tokens = 4_096
    """A larger image."""
    image_unknown: Tokens = 2_048
    """An image whose size the body does not say."""
    audio: Tokens = 2_048
    """Audio of any length; the bytes do not show the length, so the default is generous."""
    video: Tokens = 8_192
    """Video of any length; the bytes do not show the length, so the default is generous."""


@dataclass(frozen=True, slots=True)
class EmaSettings:
    """The paper's estimator: one mean of bytes per token for each category."""

    decay: Share = 0.95
    """The weight that the mean keeps when a response is added: the paper's beta."""
    margin_deviations: Annotated[float, Meta(ge=0)] = 1.0
    """How many mean absolute deviations the conservative ratio lies below the mean: the paper's gamma."""
    initial_bytes_per_token: Annotated[float, Meta(ge=1, le=16)] = 4.0
    """The ratio of a category without responses."""


@dataclass(frozen=True, slots=True)
class ByteClassSettings:
    """The byte-class estimator: prices of bytes by least squares, with an upper bound that is calibrated by
    responses.
    """

    epsilon: Share = 0.01
    """The share of prompts that may exceed their upper bound."""
    forgetting: Share = 0.9995
    """The share of its weight that a response keeps with each later one: a model remembers about
    1 / (1 - forgetting) responses, 2,000 at 0.9995."""
    max_prefixes: Annotated[int, Meta(ge=0, le=1 << 20)] = 4_096
    """How many conversations, over all models, to remember with their prompt tokens for the next turn; about 800
    bytes each, most of which are taken at the start. The least recently used is forgotten first. 0 remembers
    none."""


@dataclass(frozen=True, slots=True)
class EstimatorSettings:
    """How prompt and output tokens are estimated."""

    kind: Literal["byteclass", "ema"] = "byteclass"
    """`byteclass`, or the paper's `ema`; see [estimator.md](estimator.md)."""
    default_output_tokens: Tokens = 1_024
    """The output length assumed if the client declares no limit, until enough responses have shown how long they
    get."""
    output_epsilon: Annotated[float, Meta(ge=0.001, le=0.5)] = 0.01
    """The share of responses that may exceed the learned output length, which is used if the client declares
    no limit."""
    cap_output_tokens: bool = False
    """Whether a declared limit counts only up to the learned length. More requests fit the smaller pools; a share
    `output_epsilon` of them is cut there, or refused."""
    young_observations: Annotated[int, Meta(ge=0)] = 50
    """A category with fewer responses than this has priority in learning."""
    max_categories: Keys = 1_024
    """How many categories (a model with a tenant or a kind of text) to remember; the least recently used is
    forgotten first."""
    max_models: Keys = 64
    """How many models to remember; their state is larger. Beyond that, models that are not in use are forgotten,
    and new ones share one model."""
    exact: dict[Glob, File] = field(default_factory=dict)
    """Tokenizer files by globs of model names: a `tokenizer.json` as published with Hugging Face models; the first
    glob that matches applies. Requests near a pool's limit are then counted exactly; needs `dualpool[exact]`, and
    150 to 300 MB of memory for each file in each process."""
    exact_budget_ms: Annotated[float, Meta(ge=0.1, le=50)] = 3.0
    """The time limit of a count, which may be exceeded by up to 2 ms; after that the estimate is used. Requests
    wait for the count."""
    media_tokens: MediaTokens = field(default_factory=MediaTokens)
    byteclass: ByteClassSettings = field(default_factory=ByteClassSettings)
    ema: EmaSettings = field(default_factory=EmaSettings)

    @property
    def bound_epsilon(self) -> float | None:
        """The share of prompts that may exceed their upper bound; None if the estimator promises none."""
        return self.byteclass.epsilon if self.kind == "byteclass" else None
