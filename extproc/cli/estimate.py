"""`dualpool estimate`: the router's estimate and decision for one request body, with the reasons.

With `--admin`, the router's configuration and learned state are fetched, but the estimate is computed locally: the
prompt never leaves the machine.
"""

import argparse
import codecs
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from extproc.cli.token import PAGE_ERRORS, add_token, bearer_of, page, why
from extproc.core.errors import ConfigurationError
from extproc.core.facts import Api
from extproc.files import read_file, read_from

if TYPE_CHECKING:
    from extproc.config.schema import Configuration
    from extproc.core.facts import RequestFacts
    from extproc.core.router.placer import Placer

__all__ = ["add"]

# The default of listen.max_message_bytes: larger bodies never reach a router.
MAX_BODY_BYTES: Final = 128 << 20

APIS: Final = {"chat" if api is Api.CHAT else api.value: api for api in Api}


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "estimate",
        help="show how a request body is estimated and placed, and why",
        description="Shows the facts of a request body, its estimate and bound, and the pool with the reason. "
        "The body stays on this machine.",
    )
    parser.add_argument("file", metavar="FILE", help="a request body; - is standard input")
    parser.add_argument("--api", choices=APIS, help="the API that the body is for (default: as its keys suggest)")
    parser.add_argument("--tenant", default="", help="value of the tenant header")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--config", type=Path, help="the router's YAML file; all settings have defaults")
    source.add_argument(
        "--admin", metavar="URL", help="take configuration and learned state from a running router"
    )
    add_token(parser)
    parser.set_defaults(run=_run)


@dataclass(frozen=True, slots=True)
class _Response:
    """The output: names and values of the facts, of the estimate, and of each feature that is not zero."""

    facts: dict[str, Any]
    features: list[dict[str, Any]]
    estimate: dict[str, Any]


def _run(options: argparse.Namespace) -> int:
    from extproc.core.apis import read_request  # noqa: PLC0415  (other commands start faster without these)
    from extproc.core.apis.guessing import likeliest_api  # noqa: PLC0415
    from extproc.core.errors import BodyNotUnderstood  # noqa: PLC0415

    body = _read(options.file)
    placer = _placer(options)
    try:
        api = APIS[options.api] if options.api else likeliest_api(body)
        facts = read_request(api, body)
    except BodyNotUnderstood as error:
        print(
            f"dualpool estimate: the body is not understood, and goes to the largest pool: {error}{_hint(body)}",
            file=sys.stderr,
        )
        return 1
    response = _response(placer, api, body, facts, options.tenant)
    print(_as_json(response) if options.json else _as_table(response))
    return 0


def _hint(body: bytes) -> str:
    """Return what the decoder's message does not show of a body that it refused; "" if there is nothing.

    It says of half of a surrogate pair at a string's end that the input was truncated.
    """
    if not body.strip():
        return " (the body is empty)"
    if body.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return " (the body begins with a byte order mark; UTF-8 without one is read)"
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return " (a string has half of a surrogate pair, which is not a character)"
    except (ValueError, RecursionError):
        pass
    return ""


def _placer(options: argparse.Namespace) -> "Placer":
    from extproc.compose import compose  # noqa: PLC0415
    from extproc.config.loading import load, parse_shown  # noqa: PLC0415
    from extproc.state.snapshot import from_json  # noqa: PLC0415
    from extproc.telemetry.fan_out import FanOut  # noqa: PLC0415

    if options.admin:
        token = bearer_of(options)
        configuration = parse_shown(_fetch(options.admin, "/config", token).decode(errors="replace"))
        placer = compose(_without_missing(configuration), FanOut(())).placer
        placer.estimator.load(from_json(_fetch(options.admin, "/state", token)))
        return placer
    return compose(load(options.config), FanOut(())).placer


def _without_missing(configuration: "Configuration") -> "Configuration":
    """Return a router's configuration, without exact counts if a tokenizer file is missing on this machine."""
    missing = [file for file in configuration.estimator.exact.values() if not Path(file).is_file()]
    if not missing:
        return configuration
    print(f"dualpool estimate: no exact counts: {missing[0]} is not on this machine", file=sys.stderr)
    return replace(configuration, estimator=replace(configuration.estimator, exact={}))


def _response(placer: "Placer", api: Any, body: bytes, facts: "RequestFacts", tenant: str) -> _Response:  # noqa: ANN401
    """Decide as the router would, and estimate separately if the decision has no estimate."""
    from extproc.core.facts import RequestHead  # noqa: PLC0415
    from extproc.core.placing.budget import token_budget  # noqa: PLC0415

    decision = placer.decide(api, RequestHead("POST", tenant=tenant), body)
    counted = decision.counted
    estimate = decision.estimate or placer.estimator.estimate(facts, tenant)
    budget = token_budget(facts, estimate)
    return _Response(
        facts={
            "api": api.value,
            "model": facts.model,
            "body bytes": len(body),
            "text bytes": facts.text_bytes,
            "messages": facts.messages,
            "tools": facts.tools,
            "tool calls": facts.tool_calls,
            "images": facts.media.images,
            "audio": facts.media.audio,
            "video": facts.media.video,
            "sequences": facts.sequences,
            "declared output tokens": facts.max_output_tokens,
        },
        features=_features(placer, facts),
        estimate={
            "prompt tokens": budget.prompt_tokens,
            "prompt bound": budget.prompt_bound,
            "output tokens": estimate.output_tokens,
            "budget": budget.total,
            "budget bound": budget.bound,
            "load tokens": budget.load_tokens,
            "learned from": estimate.source.value,
            **({} if counted is None else {"counted text tokens": counted.text_tokens or "given up"}),
            "category": estimate.category.key,
            "pool": decision.pool.name,
            "reason": decision.reason.value,
            "pool budget": decision.pool.max_budget_tokens,
            "pool context": decision.pool.context_tokens,
        },
    )


def _features(placer: "Placer", facts: "RequestFacts") -> list[dict[str, Any]]:
    """Return the features of the text and, if the estimator has prices, the tokens that each accounts for."""
    from extproc.core.estimator.byteclass import ByteClassEstimator  # noqa: PLC0415
    from extproc.core.estimator.features import FEATURE_NAMES, features  # noqa: PLC0415
    from extproc.core.estimator.text import look  # noqa: PLC0415

    counts = features(facts, look(facts.text)).tolist()
    estimator = placer.estimator
    if not isinstance(estimator, ByteClassEstimator):
        return [{"feature": n, "count": round(c)} for n, c in zip(FEATURE_NAMES, counts, strict=True) if c]
    prices = estimator.prices(facts.model).tolist()
    return [
        {"feature": name, "count": round(count), "price": round(price, 3), "tokens": round(count * price, 1)}
        for name, count, price in zip(FEATURE_NAMES, counts, prices, strict=True)
        if count
    ]


def _as_json(response: _Response) -> str:
    def keys(row: dict[str, Any]) -> dict[str, Any]:
        return {name.replace(" ", "_"): value for name, value in row.items()}

    return json.dumps(
        {"facts": keys(response.facts), "features": response.features, "estimate": keys(response.estimate)},
        indent=2,
    )


def _as_table(response: _Response) -> str:
    """Return three blocks of aligned columns."""
    facts = {name: value for name, value in response.facts.items() if value not in (0, None)}
    lines = [f"{name:24}{value:>14}" for name, value in facts.items()]
    lines += ["", f"{'feature':24}{'count':>14}{'price':>10}{'tokens':>12}"]
    for row in response.features:
        price, tokens = row.get("price", ""), row.get("tokens", "")
        lines.append(f"{row['feature']:24}{row['count']:>14,}{price:>10}{tokens:>12}")
    lines += ["", *(f"{name:24}{value:>14}" for name, value in response.estimate.items())]
    return "\n".join(lines)


def _read(name: str) -> bytes:
    if name == "-" and not sys.stdin:  # Python sets it to None if descriptor 0 is closed
        raise ConfigurationError("FILE -: standard input is closed")
    try:
        if name == "-":
            return read_from(sys.stdin.buffer, MAX_BODY_BYTES, name)
        return read_file(name, MAX_BODY_BYTES)
    except OSError as error:
        raise ConfigurationError(f"FILE {name}: {error}") from error


def _fetch(url: str, path: str, token: str) -> bytes:
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError(f"--admin {url}: a URL such as http://127.0.0.1:9090 is needed")
    try:
        return page(url.rstrip("/") + path, token)
    except PAGE_ERRORS as error:
        reason = why(error, token, " (use the admin address)")
        raise ConfigurationError(f"--admin {url}{path}: {reason}") from error
