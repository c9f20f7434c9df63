"""`dualpool emulate`: an emulated vLLM server."""

import argparse
from typing import TYPE_CHECKING

from extproc.core.errors import ConfigurationError

if TYPE_CHECKING:
    from extproc.emulator import Emulator

__all__ = ["add"]


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "emulate",
        help="run an emulated pool: OpenAI-compatible, with real token counts",
        description="Emulates vLLM: counts tokens, enforces max_model_len with vLLM's errors, responds with "
        "made-up text in JSON or as a stream, and serves vLLM's metrics. Prints its URL when it listens.",
    )
    group = parser.add_argument_group("the pool")
    group.add_argument("--model", required=True, metavar="NAME", help="served model name")
    group.add_argument("--max-model-len", required=True, type=int, metavar="N", help="context, in tokens")
    group.add_argument("--name", default="pool", help="value of x-served-by in responses (default: pool)")
    group.add_argument(
        "--address",
        default="127.0.0.1:0",
        metavar="HOST:PORT",
        help="where to listen; port 0 is any free port (default: %(default)s)",
    )
    group.add_argument(
        "--vllm-version",
        default="0.32",
        help="what happens when prompt + max_tokens exceed the context: 0.20 refuses the request, 0.32 (default) "
        "shortens the output",
    )
    group = parser.add_argument_group("responses")
    group.add_argument("--tokenizer", default="auto", help="auto (default), qwen, cl100k, deepseek or bytes")
    group.add_argument(
        "--median-completion-tokens",
        type=int,
        default=80,
        metavar="N",
        help="median length of outputs, in tokens (default: 80)",
    )
    group.add_argument(
        "--compression", default="none", help="none (default), gzip, deflate or br, for clients that accept it"
    )
    group.add_argument(
        "--faults", action="store_true", help="let requests trigger faults with the header x-emulate-fault"
    )
    _add_speed(parser)
    parser.set_defaults(run=_run)


def _add_speed(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("speed")
    group.add_argument(
        "--prefill-tokens-per-s",
        type=float,
        metavar="X",
        help="prompt tokens per second, of all requests together (default: unlimited)",
    )
    group.add_argument(
        "--decode-tokens-per-s",
        type=float,
        metavar="X",
        help="output tokens per second of each request (default: unlimited)",
    )
    group.add_argument(
        "--max-num-seqs", type=int, default=256, metavar="N", help="running requests; others wait (default: 256)"
    )
    group.add_argument(
        "--kv-cache-tokens",
        type=int,
        metavar="N",
        help="size of the KV cache; beyond it requests wait and are preempted (default: unlimited)",
    )


def _run(options: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415  (other commands start faster without the server's imports)

    try:
        import uvloop  # noqa: PLC0415

        from extproc.emulator import Emulator, EmulatorSettings  # noqa: PLC0415
        from extproc.emulator.settings import Compression, TokenizerName, VllmVersion, choice  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{error.name} is not installed; install dualpool[demo]") from error

    settings = EmulatorSettings(
        model=options.model,
        max_model_len=options.max_model_len,
        name=options.name,
        address=options.address,
        tokenizer=choice(TokenizerName, "tokenizer", options.tokenizer),
        prefill_tokens_per_s=options.prefill_tokens_per_s,
        decode_tokens_per_s=options.decode_tokens_per_s,
        max_num_seqs=options.max_num_seqs,
        kv_cache_tokens=options.kv_cache_tokens,
        median_completion_tokens=options.median_completion_tokens,
        compression=choice(Compression, "compression", options.compression),
        vllm_version=choice(VllmVersion, "vllm-version", options.vllm_version),
        faults=options.faults,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(Emulator(settings)))
    return 0


async def _serve(emulator: "Emulator") -> None:
    import asyncio  # noqa: PLC0415
    import signal  # noqa: PLC0415

    stopping = asyncio.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, stopping.set)
    try:
        url = await emulator.start()
    except OSError as error:
        raise ConfigurationError(
            f"address: cannot listen on {emulator.settings.address}: {error.strerror}"
        ) from error
    print(f"listening on {url}", flush=True)
    await stopping.wait()
    await emulator.stop()
