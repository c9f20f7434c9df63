"""vLLM's error responses: the statuses, messages and error objects of its API server (0.20 and later, V1 engine).

Sources: prompts that are too long (vllm/renderers/params.py), type validation
(vllm/entrypoints/openai/server_utils.py), parameters out of range (vllm/sampling_params.py), and Anthropic's error
object (vllm/entrypoints/anthropic/api_router.py).
"""

__all__ = ["Refusal", "bad_parameter", "bad_request", "not_found", "too_long", "too_many_characters"]


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


def not_found(model: str) -> Refusal:
    """Return the refusal of a model that is not served."""
    return Refusal(f"The model `{model}` does not exist.", param="model", kind="NotFoundError", status=404)


def too_long(max_model_len: int, output_tokens: int, input_tokens: int, *, exact: bool) -> Refusal:
    """Return the refusal of a prompt that is too long; `exact` is false if counting stopped at the limit."""
    at_least = "" if exact else "at least "
    return Refusal(
        f"This model's maximum context length is {max_model_len} tokens. However, you requested {output_tokens} "
        f"output tokens and your prompt contains {at_least}{input_tokens} input tokens, for a total of "
        f"{at_least}{input_tokens + output_tokens} tokens. Please reduce the length of the input prompt or the "
        f"number of requested output tokens. (parameter=input_tokens, value={input_tokens})",
        param="input_tokens",
    )


def too_many_characters(
    max_model_len: int, output_tokens: int, characters: int, room: int, per_token: int
) -> Refusal:
    """Return the refusal of a text that could not fit with any tokenizer; its tokens are not counted."""
    return Refusal(
        f"This model's maximum context length is {max_model_len} tokens. However, you requested {output_tokens} "
        f"output tokens and your prompt contains {characters} characters (more than {room * per_token} "
        f"characters, which is the upper bound for {room} input tokens). Please reduce the length of the input "
        f"prompt or the number of requested output tokens. (parameter=input_text, value={characters})",
        param="input_text",
    )
