import json

import pytest

from extproc.core.apis.response import reader_for
from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.facts import Api, ResponseHead
from extproc.core.reading.refusal import read_overflow
from extproc.core.usage import Overflow

# Error messages of vLLM (0.4 to 0.20), OpenAI, SGLang, llama.cpp, TGI, Anthropic and TensorRT-LLM.
MESSAGES = [
    ("Input length (265330) exceeds model's maximum context length (262144).", 265330),
    ("The engine prompt length 227861 exceeds the max_model_len 131072. Please reduce prompt.", 227861),
    ("prompt is too long: 208310 tokens > 200000 maximum", 208310),
    ("input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input length", 188240),
    ("Input length (9000 tokens) exceeds the maximum allowed length (8192 tokens).", 9000),
    (
        (
            "Multimodal prompt is too long after expanding multimodal tokens. After expanding "
            "len(req.origin_input_ids_unpadded)=31 => 9214 >= 8186."
        ),
        9214,
    ),
    ("The input (61709 tokens) is longer than the model's context length (40960 tokens).", 61709),
    (
        (
            "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a "
            "total of 5100 tokens: 5000 tokens from the input messages and 100 tokens for the completion."
        ),
        5000,
    ),
    ("request (4390 tokens) exceeds the available context size (4096 tokens), try increasing it", 4390),
    ("the request exceeds the available context size. try increasing the context size", None),
    ("Input validation error: `inputs` must have less than 4096 tokens. Given: 5000", 5000),
    (
        (
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` "
            "tokens and 200 `max_new_tokens`"
        ),
        4000,
    ),
    (
        (
            "This model's maximum context length is 8192 tokens. However, you requested 9100 tokens (8100 in "
            "the messages, 1000 in the completion). Please reduce the length of the messages or completion."
        ),
        8100,
    ),
    (
        (
            "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens in the "
            "messages, Please reduce the length of the messages."
        ),
        9000,
    ),
    (
        (
            "This model's maximum context length is 512 tokens. However, you requested 548 tokens in the input "
            "for embedding generation. Please reduce the length of the input."
        ),
        548,
    ),
    (
        (
            "This model's maximum context length is 8192 tokens. However, your request has 9000 input tokens. "
            "Please reduce the length of the input messages. (parameter=input_tokens, value=9000)"
        ),
        9000,
    ),
    (
        (
            "'max_tokens' or 'max_completion_tokens' is too large: 4096. This model's maximum context length is"
            " 8192 tokens and your request has 5000 input tokens (4096 > 8192 - 5000). (parameter=max_tokens, "
            "value=4096)"
        ),
        5000,
    ),
    (
        (
            "You passed 8001 input tokens and requested 192 output tokens. However, the model's context length "
            "is only 8192 tokens, resulting in a maximum input length of 8000 tokens. Please reduce the length "
            "of the input prompt. (parameter=input_tokens, value=8001)"
        ),
        8001,
    ),
    (
        (
            "You passed 2000000 input characters and requested 192 output tokens. However, the model's context "
            "length is only 8192 tokens, resulting in a maximum input length of 8000 tokens (at most 1024000 "
            "characters). Please reduce the length of the input prompt."
        ),
        8000,
    ),
    (
        (
            "This model's maximum context length is 8192 tokens. However, you requested 192 output tokens and "
            "your prompt contains at least 8001 input tokens, for a total of at least 8193 tokens. Please "
            "reduce the length of the input prompt or the number of requested output tokens."
        ),
        8001,
    ),
    (
        (
            "This model's maximum context length is 8192 tokens. However, you requested 192 output tokens and "
            "your prompt contains 2000000 characters (more than 1024000 characters, which is the upper bound "
            "for 8000 input tokens). Please reduce the length of the input prompt or the number of requested "
            "output tokens."
        ),
        8000,
    ),
    (
        (
            "This model's maximum context length is 8192 tokens. However, you requested 8192 output tokens and "
            "your prompt contains 581 characters (more than 0 characters, which is the upper bound for 0 input "
            "tokens)."
        ),
        None,
    ),
    (
        (
            "max_tokens=9000 cannot be greater than max_model_len=max_total_tokens=8192. Please request fewer "
            "output tokens. (parameter=max_tokens, value=9000)"
        ),
        None,
    ),
    (
        (
            "The decoder prompt (length 9000) is longer than the maximum model length of 8192. Make sure that "
            "`max_model_len` is no smaller than the number of text tokens."
        ),
        9000,
    ),
    (
        (
            "The prompt (total length 25938) is too long to fit into the model (context length 4096). Make sure"
            " that `max_model_len` is no smaller than the number of text tokens plus multimodal tokens."
        ),
        25938,
    ),
    ("Prompt length (14081) exceeds maximum input length (8096). Set log level to info", 14081),
    ("Cannot process new request: Prompt length (5056) exceeds maximum sequence length (2048)", 5056),
    (
        (
            "The sum of prompt length (4000) and query length (0) max_tokens (2048) should not exceed max_seq_len "
            "(4096)"
        ),
        4000,
    ),
    (
        "The sum of prompt length (9000.0), query length (0) should not exceed max_num_tokens (8192)",
        9000,
    ),
    ("this model's maximum context length is 8192 tokens, but the prompt contains 9000 input tokens", 9000),
    (
        (
            "This model's maximum context length is 4097 tokens. However, your messages resulted in 6164 "
            "tokens. Please reduce the length of the messages."
        ),
        6164,
    ),
    (
        (
            "This model's maximum context length is 4097 tokens, however you requested 5000 tokens (4000 in "
            "your prompt; 1000 for the completion). Please reduce your prompt; or completion length."
        ),
        4000,
    ),
    ("This model's maximum context length is 8192 tokens. However, you requested 9100 tokens.", None),
]


@pytest.mark.parametrize(("message", "at_least"), MESSAGES)
def test_refusals_in_all_their_shapes(message: str, at_least: int | None) -> None:
    """A refusal for length is recognised by its message, nested, flat or
    in Anthropic's form, with its lower bound.
    """
    error = {"message": message, "type": "BadRequestError", "param": None, "code": 400}
    shapes = [{"error": error}, {"object": "error"} | error, {"type": "error", "error": error}]
    assert [read_overflow(json.dumps(shape).encode()) for shape in shapes] == [Overflow(at_least)] * 3


@pytest.mark.parametrize(
    "error",
    [
        {"message": "Your input exceeds the context window of this model.", "code": "context_length_exceeded"},
        {"message": "Too long.", "param": "input_tokens", "code": 400},
        {"message": "Too long.", "param": "input_text", "code": 400},
        {"message": "Too long.", "type": "exceed_context_size_error", "n_ctx": 256},
    ],
)
def test_refusals_known_by_a_field(error: dict[str, object]) -> None:
    """A code or a parameter that only refusals for length have is enough."""
    assert read_overflow(json.dumps({"error": error}).encode()) == Overflow(None)


QUOTED = "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens in the messages."


@pytest.mark.parametrize(
    "message",
    [
        # FastAPI's list of errors in older vLLM and SGLang, vLLM's own text, pydantic's, and a proxy before vLLM.
        f"[{{'type': 'missing', 'loc': ('body', 'model'), 'input': {{'prompt': '{QUOTED}'}}}}]",
        f"2 validation errors:\n  {{'type': 'string_type', 'loc': ('body', 'messages', 1), 'input': '{QUOTED}'}}",
        f"1 validation error for ChatCompletionRequest\nmessages\n  [type=list_type, input_value='{QUOTED}']",
        f"litellm.BadRequestError: VllmException - 1 validation error:\n  {{'input': '{QUOTED}'}}",
    ],
)
def test_what_a_client_wrote_is_no_refusal_for_length(message: str) -> None:
    """A server that refuses a body for its types quotes it, and the quote may be about lengths."""
    assert read_overflow(json.dumps({"error": {"message": message, "code": 400}}).encode()) is None


def test_llama_cpp_names_the_prompt_in_a_field() -> None:
    """llama.cpp's refusal counts the complete prompt."""
    error = {
        "code": 400,
        "message": "no",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 1407,
        "n_ctx": 256,
    }
    assert Overflow(1407) == read_overflow(json.dumps({"error": error}).encode())


def test_a_refusal_of_tgi_is_one_sentence() -> None:
    """TGI's error field is the message itself."""
    error = "Input validation error: `inputs` must have less than 1000 tokens. Given: 1200"
    assert Overflow(1200) == read_overflow(json.dumps({"error": error, "error_type": "validation"}).encode())


@pytest.mark.parametrize("status", [400, 413, 422])
def test_refusals_of_every_status_are_read(status: int) -> None:
    """Servers refuse for length with 400, 413 or 422."""
    reader = reader_for(Api.CHAT, ResponseHead(status, "application/json"), 4096)
    reader.feed(json.dumps({"error": {"message": "no", "code": "context_length_exceeded"}}).encode())
    assert Overflow(None) == reader.finish()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"error": "no"}',
        b'{"error": null}',
        b'{"error": {"message": "Invalid tools."}}',
        b'{"error": {"message": "max_tokens must be at least 1, got 0.", "param": "max_tokens", "code": 400}}',
        b'{"error": {"message": "truncated',
        b'{"error": {"message": ["maximum context length is 8192 tokens"]}}',
        b"maximum context length is 8192 tokens",
        b'{"detail": [{"msg": "Field required"}]}',
        b'{"x": ' + b"[" * 100_000,
    ],
)
def test_other_refusals(body: bytes) -> None:
    """A refusal for another reason, or a body that is not a refusal, is not an overflow."""
    assert read_overflow(body) is None


@pytest.mark.parametrize("left", [0, -45])
def test_an_output_without_room_is_a_refusal_for_length(left: int) -> None:
    """An output limit that vLLM cut to nothing shows the prompt's length, unless the client may have sent it."""
    message = f"max_tokens must be at least 1, got {left}. (parameter=max_tokens, value={left})"
    body = json.dumps({"error": {"message": message, "param": "max_tokens", "code": 400}}).encode()
    assert read_overflow(body, may_fill_context=True) == Overflow(None)
    assert read_overflow(body) is None


def test_counts_of_any_size_are_harmless() -> None:
    """A number of thousands of digits in a message is ignored."""
    message = f"This model's maximum context length is 8192 tokens. {'9' * 10_000} input tokens"
    assert read_overflow(json.dumps({"error": {"message": message}}).encode()) == Overflow(None)


REFUSED = {
    "message": "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
    "code": 400,
}
CHUNK = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'


@pytest.mark.parametrize("error", [{"error": REFUSED}, {"object": "error"} | REFUSED])
@pytest.mark.parametrize("end", [b"data: [DONE]\n\n", b""])
def test_a_stream_may_consist_of_a_refusal(error: dict[str, object], end: bytes) -> None:
    """SGLang begins a stream before it checks the request's length; the first event is then the refusal."""
    reader = reader_for(Api.CHAT, ResponseHead(200, "text/event-stream"), 4096)
    reader.feed(b": ping\n\ndata: " + json.dumps(error).encode() + b"\n\n" + end)
    assert (reader.complete, reader.finish()) == (True, Overflow(9000))


@pytest.mark.parametrize("separately", [False, True])
def test_an_error_after_output_is_no_refusal_for_length(*, separately: bool) -> None:
    """A server that fails in the middle of a stream had accepted the prompt."""
    reader = reader_for(Api.CHAT, ResponseHead(200, "text/event-stream"), 4096)
    error = b"data: " + json.dumps({"error": REFUSED}).encode() + b"\n\n"
    if separately:
        reader.feed(CHUNK)
    with pytest.raises(ResponseNotUnderstood) as raised:
        reader.feed(error if separately else CHUNK + error)
    assert raised.value.fault is ResponseFault.NO_USAGE


def test_a_stream_of_another_error_is_not_learned_from() -> None:
    """Only a refusal for length says something of the prompt."""
    reader = reader_for(Api.CHAT, ResponseHead(200, "text/event-stream"), 4096)
    with pytest.raises(ResponseNotUnderstood):
        reader.feed(b'data: {"error":{"message":"CUDA out of memory","code":500}}\n\n')
