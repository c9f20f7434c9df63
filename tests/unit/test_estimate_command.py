"""`dualpool estimate`: prints a body's estimate as a table or JSON, from the prior or a running router's state."""

import io
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from extproc.cli.main import main
from extproc.config.loading import as_json, parse
from extproc.core.estimator import make_estimator
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.facts import Api, RequestFacts
from extproc.core.usage import Usage
from extproc.state.snapshot import from_json, to_json
from tests.unit.tokenizer_files import byte_level

BODY = {"model": "m", "messages": [{"role": "user", "content": "Hello there, 你好! " * 20}], "max_tokens": 50}


@pytest.fixture
def body(tmp_path: Path) -> str:
    """Return the name of a file that contains a chat completion's body."""
    (tmp_path / "body.json").write_text(json.dumps(BODY))
    return str(tmp_path / "body.json")


@pytest.fixture(scope="module")
def learned() -> str:
    """Return the state, as JSON, of an estimator that has learned 300 tokens for the body's text."""
    estimator = make_estimator(EstimatorSettings())
    facts = RequestFacts(Api.CHAT, "m", ("Hello there, 你好! " * 20).encode(), messages=1)
    for _ in range(120):
        estimator.observe(estimator.estimate(facts, ""), Usage(300, 40))
    return to_json(estimator.state())


@pytest.fixture(scope="module")
def admin(learned: str) -> Iterator[str]:
    """Serve /config and /state as a router does; yield the URL."""
    pages = {
        "/config": as_json(
            parse("pools: [{name: tiny, max_budget_tokens: 200}, {name: large, max_budget_tokens: 9000}]")
        ),
        "/state": learned.encode(),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in pages else 404)
            self.end_headers()
            self.wfile.write(pages.get(self.path, b""))

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_table_shows_facts_features_estimate_and_pool(body: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a router the estimate is made from the prior, and the table shows that."""
    assert main(["estimate", body]) == 0
    words = capsys.readouterr().out.split()
    assert {"chat_completions", "han", "short", "fits", "prior"} <= set(words)


def test_json_holds_the_same(body: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints one object with facts, features and estimate."""
    assert main(["estimate", body, "--json"]) == 0
    response = json.loads(capsys.readouterr().out)
    assert response["facts"]["declared_output_tokens"] == 50
    assert ["han", 40] in [[feature["feature"], feature["count"]] for feature in response["features"]]
    assert response["estimate"]["budget"] == response["estimate"]["prompt_tokens"] + 50


def test_admin_uses_a_running_routers_state_and_pools(
    body: str, admin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --admin the estimate uses what the router has learned, and the router's own pools."""
    assert main(["estimate", body, "--json", "--admin", admin]) == 0
    estimate = json.loads(capsys.readouterr().out)["estimate"]
    assert estimate["prompt_tokens"] == pytest.approx(300, abs=3)
    assert (estimate["pool"], estimate["reason"], estimate["learned_from"]) == ("large", "too_long", "learned")


@pytest.mark.parametrize(
    ("api", "body", "expected"),
    [
        ("completions", {"prompt": [[1, 2, 3], [4]]}, ("exact", 16)),
        ("embeddings", {"input": [1, 2, 3, 4]}, ("exact", 0)),
        ("responses", {"input": "Hello there", "max_output_tokens": 70}, ("prior", 70)),
        ("messages", {"messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 80}, ("prior", 80)),
        ("rerank", {"query": "Where?", "documents": ["Here", "There"]}, ("prior", 0)),
        ("score", {"text_1": "Here", "text_2": "There"}, ("prior", 0)),
        ("generate", {"text": "Hello there", "sampling_params": {"max_new_tokens": 90}}, ("prior", 90)),
    ],
)
def test_bodies_of_every_api_can_be_read_from_standard_input(
    api: str,
    body: dict[str, object],
    expected: tuple[str, int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`-` reads the body of the named API from standard input."""
    stdin = io.TextIOWrapper(io.BytesIO(json.dumps({"model": "m", **body}).encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    assert main(["estimate", "-", "--api", api, "--json"]) == 0
    estimate = json.loads(capsys.readouterr().out)["estimate"]
    assert expected == (estimate["learned_from"], estimate["output_tokens"])


def test_a_configuration_file_names_the_pools(
    body: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --config, the pools and the estimator are those of the file."""
    file = tmp_path / "dualpool.yaml"
    file.write_text(
        "pools: [{name: a, max_budget_tokens: 10}, {name: b, max_budget_tokens: 20}]\nestimator: {kind: ema}"
    )
    assert main(["estimate", body, "--json", "--config", str(file)]) == 0
    assert "b" == json.loads(capsys.readouterr().out)["estimate"]["pool"]


def test_a_server_without_admin_pages_is_reported_in_one_sentence(
    body: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """If --admin is another port, such as the router's gRPC port, the message names the address that is needed."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak_no_http() -> None:
            with server.accept()[0] as connection:
                connection.recv(1)
                connection.sendall(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00")

        thread = threading.Thread(target=speak_no_http)
        thread.start()
        assert main(["estimate", body, "--admin", f"http://127.0.0.1:{server.getsockname()[1]}"]) == 2
        thread.join()
    printed = capsys.readouterr().err
    assert "use the admin address" in printed
    assert 1 == printed.count("\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--admin", "http://a b:1", "-"], "--admin http://a b:1"),
        (["missing.json"], "FILE missing.json"),
        (["--admin", "ftp://x", "-"], "--admin ftp://x"),
        (["--admin", "http://127.0.0.1:1", "-"], "--admin http://127.0.0.1:1/config"),
    ],
)
def test_wrong_arguments_are_one_sentence(
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    body: str,
) -> None:
    """Unreadable input ends the command with exit code 2 and a message that names it."""
    with Path(body).open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert main(["estimate", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_body_that_is_not_understood_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Such a body goes to the largest pool; the exit code is 1."""
    (tmp_path / "bad").write_text("{")
    assert main(["estimate", str(tmp_path / "bad")]) == 1
    assert "not_json" in capsys.readouterr().err


def test_learned_state_survives_its_json(learned: str) -> None:
    """Every number of the byte-class state is restored exactly."""
    estimator = make_estimator(EstimatorSettings())
    estimator.load(from_json(learned))
    assert to_json(estimator.state()) == learned
    assert estimator.state() == from_json(learned)


@pytest.mark.parametrize(
    ("body", "api"),
    [
        ({"messages": [{"role": "user", "content": "Hi"}]}, "chat_completions"),
        ({"messages": [{"role": "user", "content": "Hi"}], "system": "Be brief.", "max_tokens": 5}, "messages"),
        ({"messages": [], "tools": [{"name": "f", "input_schema": {}}], "max_tokens": 5}, "messages"),
        ({"prompt": "Once upon a time"}, "completions"),
        ({"prompt": [1, 2, 3]}, "completions"),
        ({"input": "Hello there", "max_output_tokens": 70}, "responses"),
        ({"input": [{"role": "user", "content": "Hi"}]}, "responses"),
        ({"input": ["one", "two"]}, "embeddings"),
        ({"input": [1, 2, 3]}, "embeddings"),
        ({"query": "Hi", "documents": ["one"]}, "rerank"),
        ({"text_1": "Hi", "text_2": "Ho"}, "score"),
        ({"queries": "Hi", "documents": ["Ho"]}, "score"),
        ({"text": "Hi"}, "generate"),
        ({"token_ids": [1, 2], "sampling_params": {}}, "generate"),
        ({"input": "one", "encoding_format": "base64"}, "embeddings"),
    ],
)
def test_the_api_is_guessed_from_the_bodys_keys(
    body: dict[str, object], api: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --api, the keys of the body determine the API."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(body).encode())))
    assert main(["estimate", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["facts"]["api"] == api


def test_requests_near_a_limit_are_counted(body: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a tokenizer configured, the count of the text's tokens is printed next to the estimate based on it."""
    pytest.importorskip("fastokens", reason="needs dualpool[exact]")
    pools = "pools: [{name: tiny, max_budget_tokens: 600}, {name: large, max_budget_tokens: 9000}]"
    (tmp_path / "router.yaml").write_text(f"{pools}\nestimator: {{exact: {{m: {byte_level(tmp_path)}}}}}")
    assert 0 == main(["estimate", body, "--config", str(tmp_path / "router.yaml"), "--json"])
    estimate = json.loads(capsys.readouterr().out)["estimate"]
    tokens = len(("Hello there, 你好! " * 20).encode())
    assert (tokens, tokens + 8) == (estimate["counted_text_tokens"], estimate["prompt_tokens"])


def test_a_routers_tokenizers_need_not_be_here(
    body: str, tmp_path: Path, learned: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the router's tokenizer files are not on this machine, the estimate is printed without a count."""
    shown = as_json(parse(f'estimator: {{exact: {{m: "{tmp_path}/nothing.json"}}}}'))
    pages = {"/config": shown, "/state": learned.encode()}
    monkeypatch.setattr("extproc.cli.estimate._fetch", lambda _url, page, _token: pages[page])
    assert 0 == main(["estimate", body, "--admin", "http://127.0.0.1:1"])
    said = capsys.readouterr()
    assert "nothing.json is not on this machine" in said.err
    assert "prompt tokens" in said.out
