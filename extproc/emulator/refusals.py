"""vLLM's error responses: the statuses, messages and error objects of its API server (0.20 and later, V1 engine).

Those for length are compared with what 0.31 and 0.32 really say (tests/golden/vllm.py). Sources of the others:
vllm/entrypoints/openai/server_utils.py (types), vllm/sampling_params.py (parameters out of range),
vllm/v1/engine/input_processor.py (an empty prompt), and vllm/entrypoints/anthropic/api_router.py (Anthropic's
error object, whose type is one of Anthropic's own from 0.33 on).
"""

__all__ = [
    "Refusal",
    "above_context",
    "bad_parameter",
    "bad_request",
    "cut_too_late",
    "empty_prompt",
    "no_such_output",
    "not_found",
    "too_long",
    "too_many_characters",
]


class Refusal(Exception):
    """Raised to answer a request with an error; `kind` is the error object's type."""

    def __init__(
        self, message: str, *, param: str | None = None, kind: str = "BadRequestError", status: int = 400
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.kind, self.status = message, param, kind, status

    def openai_body(self) -> dict[str, object]:
        """Return the body in the format of OpenAI's APIs."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}
        return {"error": error}

    def anthropic_body(self) -> dict[str, object]:
        """Return the body in the format of Anthropic's API."""
        return {"type": "error", "error": {"type": self.kind, "message": self.message}}


def bad_request(message: str, param: str | None = None) -> Refusal:
    """Return the refusal of a body that violates the API's types; vLLM's `type` is then the status phrase."""
    return Refusal(message, param=param, kind="Bad Request")


def bad_parameter(param: str, value: object, rule: str) -> Refusal:
    """Return the refusal of a value that is out of range."""
    return Refusal(f"{param} {rule}, got {value}. (parameter={param}, value={value})", param=param)


def no_such_output(rule: str, min_tokens: int) -> Refusal:
    """Return the refusal of a least output that no output can have."""
    return Refusal(f"min_tokens must be {rule}, got {min_tokens}.")


def empty_prompt() -> Refusal:
    """Return the refusal of a prompt without tokens."""
    return Refusal("The decoder prompt cannot be empty")


def not_found(model: str) -> Refusal:
    """Return the refusal of a model that is not served."""
    return Refusal(f"The model `{model}` does not exist.", param="model", kind="NotFoundError", status=404)


def above_context(param: str, tokens: int, max_model_len: int) -> Refusal:
    """Return the refusal of an output limit that is above the context by itself."""
    return _too_large(param, tokens, f"max_model_len={max_model_len}", "fewer output tokens")


def cut_too_late(tokens: int, limit: str) -> Refusal:
    """Return the refusal of a request to cut the prompt to more than may be left of it, which `limit` says."""
    return _too_large("truncate_prompt_tokens", tokens, limit, "a smaller truncation size")


def too_long(max_model_len: int, input_tokens: int, *, exact: bool, output_tokens: int | None) -> Refusal:
    """Return the refusal of a prompt that is too long; `exact` is false if counting stopped at the limit.

    `output_tokens` is the declared output if it has to fit, too, as up to 0.31, otherwise None.
    """
    at_least = "" if exact else "at least "
    prompt = f"your prompt contains {at_least}{input_tokens} input tokens"
    if output_tokens is None:
        why = f"{prompt}, which exceeds this limit even without any output tokens"
    else:
        total = f"for a total of {at_least}{input_tokens + output_tokens} tokens"
        why = f"you requested {output_tokens} output tokens and {prompt}, {total}"
    return _of_prompt(max_model_len, why, output_tokens, "input_tokens", input_tokens)


def too_many_characters(
    max_model_len: int, characters: int, room: int, per_token: int, *, output_tokens: int | None
) -> Refusal:
    """Return the refusal of a text that could not fit with any tokenizer; its tokens are not counted."""
    prompt = (
        f"your prompt contains {characters} characters (more than {room * per_token} characters, which is the "
        f"upper bound for {room} input tokens)"
    )
    why = prompt if output_tokens is None else f"you requested {output_tokens} output tokens and {prompt}"
    return _of_prompt(max_model_len, why, output_tokens, "input_text", characters)


def _of_prompt(max_model_len: int, why: str, output_tokens: int | None, param: str, value: int) -> Refusal:
    reduce = "" if output_tokens is None else " or the number of requested output tokens"
    return Refusal(
        f"This model's maximum context length is {max_model_len} tokens. However, {why}. Please reduce the length "
        f"of the input prompt{reduce}. (parameter={param}, value={value})",
        param=param,
    )


def _too_large(param: str, value: int, limit: str, instead: str) -> Refusal:
    return Refusal(
        f"{param}={value} cannot be greater than {limit}. Please request {instead}. "
        f"(parameter={param}, value={value})",
        param=param,
    )
