"""The offline comparison, with a tokenizer that needs no vocabulary."""

import json
import re
from dataclasses import replace
from math import isnan, nan
from pathlib import Path

import numpy as np
import pytest

from extproc.cli.main import main
from extproc.core.facts import Api, RequestFacts
from extproc.evaluation.bars import HEAD, comparison_bars
from extproc.evaluation.cases import Plan
from extproc.evaluation.chats import Chat, Session, Turn, with_image, with_reasoning
from extproc.evaluation.contestants import CONTESTANTS, OURS, byte_class
from extproc.evaluation.disturbed import flipped, poisoned
from extproc.evaluation.made import made_texts, made_tool
from extproc.evaluation.measure import HEADROOMS, figures, run
from extproc.evaluation.mixes import Material, mixed, sessions, with_media, with_reasoning_in_history
from extproc.evaluation.odd import ODD_KINDS, odd_texts
from extproc.evaluation.report import report
from extproc.evaluation.requests import Request, make_request
from extproc.evaluation.scenarios import Comparison, compare
from extproc.evaluation.texts import Texts, halves, ordinary, window
from extproc.evaluation.timing import Timing
from extproc.evaluation.tokenizers import Tokenizer
from extproc.evaluation.unseen import held_out, unseen_texts

LENGTHS = [(50, 10), (400, 20), (1_500, 30)]
PROSE = b"Some words of prose. " * 3_000


def words(text: str) -> list[int]:
    """Split into pieces of words, digits and punctuation, as tokenizers do."""
    return [len(piece) for piece in re.findall(r" ?[^\W\d_]{1,5}|\d{1,3}| ?[^\w\s]+|\s+|_", text)]


@pytest.fixture
def toy(tmp_path: Path) -> Tokenizer:
    """Return a tokenizer of words."""
    return Tokenizer("toy", words, 4, 3, tmp_path)


def small_texts(seed: int) -> Texts:
    """Return about 30 KB of each kind of generated text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("extproc.evaluation.made.MADE_BYTES", 8_000)
        return made_texts(np.random.default_rng(seed))


@pytest.fixture(scope="module")
def texts() -> Texts:
    """Return four kinds of text: three generated, and one in Arabic."""
    made = {kind: text for kind, text in small_texts(0).items() if kind in {"logs", "csv", "sql"}}
    return {**made, "ar": ("يولد جميع الناس أحرارا متساوين" + "\n").encode() * 100}


@pytest.fixture(scope="module")
def unseen() -> dict[str, bytes]:
    """Return the kinds that no stream contains."""
    return unseen_texts(np.random.default_rng(1), PROSE)


@pytest.fixture(scope="module")
def material(texts: Texts, unseen: dict[str, bytes]) -> Material:
    """Return those kinds and an odd one, three kinds that no stream contains, and short lengths."""
    few = {kind: unseen[kind] for kind in ("cherokee", "runes", "leet")}
    return Material({**texts, "dna": odd_texts(np.random.default_rng(0), None)["dna"]}, LENGTHS, few)


def test_a_window_wraps_around_and_is_whole_characters() -> None:
    """A window longer than its text repeats it, and never cuts a character in half."""
    cut = window("αβγ\n".encode(), 40, np.random.default_rng(1))
    assert 36 <= len(cut.encode()) <= 40
    assert set(cut) == set("αβγ\n")


def test_halves_hold_different_lines(texts: Texts) -> None:
    """The two parts of each text make up the whole; a text without line ends is split in the middle."""
    texts = {**texts, "one line": b"x" * 1_000 + b"\n"}
    first, second = halves(texts)
    assert {kind: first[kind] + second[kind] for kind in texts} == texts
    assert all(len(first[kind]) > len(texts[kind]) / 3 < len(second[kind]) for kind in texts)


def test_made_texts_are_the_same_every_time() -> None:
    """The same seed makes the same texts and tools."""
    assert small_texts(3) == small_texts(3)
    assert made_tool(np.random.default_rng(3)) == made_tool(np.random.default_rng(3))


def test_streams_hold_what_clients_send(material: Material, toy: Tokenizer) -> None:
    """Escaped bodies are longer for the same prompt; some chats have turns, tools, and a history that grows."""
    requests = list(mixed(material, toy, 300, seed=1))
    assert {*material.texts, "session"} == {request.kind for request in requests}
    assert {10, 20, 30} == {request.output_tokens for request in requests}
    assert {"a", "b", "c", "d"} == {request.tenant for request in requests}
    assert 0.05 < np.mean([request.facts.tools > 0 for request in requests]) < 0.35
    assert max(request.facts.messages for request in requests) >= 5
    arabic = [request.body_bytes / request.facts.text_bytes for request in requests if request.kind == "ar"]
    assert max(arabic) > 2 * min(arabic)
    assert [r.tokens for r in requests] == [r.tokens for r in mixed(material, toy, 300, seed=1)]


def test_a_session_repeats_its_whole_history(material: Material) -> None:
    """Each chat of a session begins with the chat before it."""
    session = Session(material.texts, ["logs"], np.random.default_rng(1), agent=True)
    first, second = session.next(), session.next()
    assert first.turns == second.turns[: len(first.turns)]
    assert ["system", "user", "assistant", "tool"] == [turn.role for turn in second.turns]
    assert first.tools == second.tools != ()


def test_mixes_have_groups_for_what_makes_them_hard(material: Material, toy: Tokenizer) -> None:
    """A third of the requests have reasoning in their history, a tenth are odd, and one in twenty has images."""
    thoughtful = [request.group for request in with_reasoning_in_history(material, toy, 400, seed=2)]
    assert 0.28 < thoughtful.count("reasoning") / 400 < 0.42
    assert 0.05 < thoughtful.count("odd") / 400 < 0.15
    pictured = list(with_media(material, toy, 400, seed=2))
    assert 0.02 < np.mean([request.group == "media" for request in pictured]) < 0.12
    assert all((request.facts.media.images + request.facts.media.video > 0) == (request.group == "media")
               for request in pictured)  # fmt: skip
    assert all(request.group == "session" for request in sessions(material, toy, 20, seed=2))


def test_the_template_drops_old_reasoning_and_prices_pixels(material: Material, toy: Tokenizer) -> None:
    """Reasoning before the last user turn costs nothing; an image costs a token per 28 x 28 pixels."""
    rng = np.random.default_rng(3)
    chat = Chat((Turn("user", "one two"),))
    thoughtful = with_reasoning(chat, material.texts, rng)
    silent = Chat(tuple(Turn(turn.role, turn.content) for turn in thoughtful.turns))
    assert toy.count_chat(silent) == toy.count_chat(thoughtful)
    pictured = with_image(chat, rng)
    pixels = [width * height for width, height in pictured.images]
    assert sum(pixels) / 784 == pytest.approx(toy.count_chat(pictured) - toy.count_chat(chat), rel=0.1)
    request = make_request("image", pictured, toy, 0, rng)
    assert len(pictured.images) == request.facts.media.images


def test_ordinary_texts_are_those_that_are_not_odd(material: Material) -> None:
    """Odd kinds are identified by name, and left out."""
    assert {"dna"} == set(material.texts) - set(ordinary(material.texts))
    assert set(odd_texts(np.random.default_rng(0), b"a b")) == ODD_KINDS


def test_counts_are_cached_on_disk(toy: Tokenizer, tmp_path: Path) -> None:
    """A count that was saved is not repeated."""
    expected = toy.count("some words")
    toy.save()
    again = Tokenizer("toy", lambda _: pytest.fail("counted twice"), 4, 3, tmp_path)
    assert again.count("some words") == expected


def test_a_chat_costs_its_contents_and_the_template(toy: Tokenizer) -> None:
    """Each message costs its content and the template's tokens; offering tools costs a preamble."""
    turns = (Turn("user", "one two"),)
    assert toy.count_chat(Chat(turns)) == 2 + 4 + 3
    assert toy.count_chat(Chat(turns, ('{"a": 1}',))) > toy.count_chat(Chat(turns)) + 50


@pytest.mark.parametrize("name", CONTESTANTS)
def test_contestants_predict_before_they_learn(name: str, material: Material, toy: Tokenizer) -> None:
    """Every contestant gives positive finite counts, and predicts the first request before it learns from it."""
    stream = list(mixed(material, toy, 30, seed=2))
    first, second = (run(CONTESTANTS[name](), stream, reported) for reported in (None, [7] * 30))
    assert np.isfinite(first.bound).all()
    assert (first.likely > 0).all()
    assert first.likely[0] == second.likely[0]


@pytest.mark.parametrize("in_flight", [0, 3])
def test_responses_are_late_while_requests_are_in_flight(in_flight: int) -> None:
    """A contestant learns from a response after that many more predictions, each response once and in order."""

    class Recorder:
        def __init__(self) -> None:
            self.calls: list[int] = []

        def predict(self, request: Request) -> tuple[float, float]:
            self.calls.append(request.tokens)
            return 1.0, 1.0

        def learn(self, reported_tokens: int) -> None:
            self.calls.append(-reported_tokens)

    facts = RequestFacts(Api.CHAT, "m", b"x")
    recorder = Recorder()
    run(recorder, [Request("k", facts, 10, tokens, 5) for tokens in (1, 2, 3, 4)], in_flight=in_flight)
    assert {0: [1, -1, 2, -2, 3, -3, 4, -4], 3: [1, 2, 3, 4, -1]}[in_flight] == recorder.calls


def test_figures_of_a_run() -> None:
    """Errors, misses, widths, misroutes and detours are computed as their names say, also by band and tenant."""

    class Half:
        def predict(self, request: Request) -> tuple[float, float]:
            return request.tokens / 2, 4_000.0

        def learn(self, reported_tokens: int) -> None:
            pass

    facts = RequestFacts(Api.CHAT, "m", b"x")
    counts = (100, 3_500, 5_000, 9_000)
    stream = [Request("k", facts, 10, tokens, 100, tenant=f"t{tokens > 4_000}") for tokens in counts] * 30
    result = figures(run(Half(), stream), stream, warm_up=0)
    assert (0.5, 0.5, 0.0, 0.5) == (
        result.mean_error, result.under_counted, result.misrouted, result.detoured
    )  # fmt: skip
    assert np.mean([39, 1 / 7, -0.2, -5 / 9]) == pytest.approx(result.width)
    assert pytest.approx((0.0, nan, 0.5, 1.0), nan_ok=True) == result.bands
    assert (0.0, 1.0) == result.tenants
    assert len(HEADROOMS) == len(result.near[0].detoured)
    assert {"k": (60, 120)} == result.kinds


def test_a_flip_keeps_all_requests_and_changes_the_mix(material: Material, toy: Tokenizer) -> None:
    """Reordering loses no request, and the halves contain different kinds."""
    stream = list(mixed(material, toy, 400, seed=3))
    reordered = flipped(stream)
    first, second = (
        sum(request.kind in {"ar", "dna", "session"} for request in half)
        for half in (reordered[:200], reordered[200:])
    )
    assert sorted(map(id, reordered)) == sorted(map(id, stream))
    assert first > 4 * second


def test_poison_is_one_percent(material: Material, toy: Tokenizer) -> None:
    """About one usage in a hundred is off by ten times; the others are true."""
    stream = list(mixed(material, toy, 1_000, seed=4))
    reported = poisoned(stream)
    wrong = [t / r.tokens for t, r in zip(reported, stream, strict=True) if t != r.tokens]
    assert 4 <= len(wrong) <= 20
    assert all(ratio == pytest.approx(10, rel=0.01) or ratio == pytest.approx(0.1, rel=0.05) for ratio in wrong)


@pytest.fixture(scope="module")
def comparison(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Return a complete small comparison, with a second tokenizer that makes twice as many tokens."""
    cache = tmp_path_factory.mktemp("cache")
    toy = Tokenizer("toy", words, 4, 3, cache)
    double = Tokenizer("double", lambda text: words(text) * 2, 4, 3, cache)
    plan = Plan(requests=120, warm_up=60, seeds=(1,))
    return compare(material, toy, [double], plan, lambda _: None)


def test_ours_beats_the_ema_that_knows_the_categories(comparison: Comparison) -> None:
    """On mixed traffic the byte classes err less than the EMA with perfect categories."""
    ours, informed = (comparison.mixed[name][0].mean_error for name in (OURS, "paper's EMA, perfect categories"))
    assert ours < informed


def test_kinds_that_no_stream_contains_are_reported_by_halves(comparison: Comparison) -> None:
    """First sights are of odd and unseen kinds; each belongs to one half, and the halves are listed separately."""
    assert {"dna", "cherokee", "runes", "leet"} == set(comparison.sights)
    assert ["dna", "runes"] == sorted(filter(held_out, comparison.sights))
    seen = replace(comparison, sights={"dna": 0.5, "runes": 1.0, "cherokee": 2.0, "leet": 0.25})
    text = report([seen], Timing(1.0, 1.0, 1.0, 1), Plan(), Material({}, LENGTHS), "", samples={})
    assert "Of 4 kinds, those missed at first sight, " in text
    assert "chosen): leet 0.25, *dna* 0.50." in text
    assert "| 4 kinds at first sight: missed | 50.00 % | <= 10.00 % |" in text
    assert "| 2 kinds at first sight, the held-out half: missed | 50.00 % |" in text


def test_unseen_texts_are_many_and_the_same_every_time(unseen: dict[str, bytes]) -> None:
    """More than sixty kinds, about half of them held out by a hash, are generated from the seed and some prose."""
    assert unseen == unseen_texts(np.random.default_rng(1), PROSE)
    assert len(unseen) > 60
    assert not ODD_KINDS & set(unseen)
    assert 25 <= sum(map(held_out, unseen)) <= 36
    assert all(len(text) > 30_000 and text.decode() for text in unseen.values())


def test_the_report_names_every_bar_and_contestant(comparison: Comparison) -> None:
    """The Markdown has a row for each bar, with its verdict, and for each estimator."""
    material = Material({"ar": b"text"}, [(4_000, 10), (100, 10)])
    text = report(
        [comparison], Timing(81.0, 200.0, 40.0, 60_000), Plan(), material, "dualpool evaluate --quick", samples={}
    )
    assert "Written by `dualpool evaluate --quick`." in text
    assert "1 kinds of text" in text
    assert "| ar | 4 | " in text
    assert "| 4 KB: features + predict + bound, median | 81 us | <= 80 us | **missed by 1 us** |" in text
    assert all(f"| {name} |" in text for name in CONTESTANTS)
    assert 3 == text.count(HEAD)
    assert 54 == text.count("| met |") + text.count("**missed")
    assert "kinds in the mix, those with more than 2 % under-counts, over all seeds: " in text


def test_a_figure_of_no_request_is_no_good_figure(comparison: Comparison) -> None:
    """A share among requests that a stream has none of is not 0, and its bar is neither met nor missed."""
    facts = RequestFacts(Api.CHAT, "m", b"x")
    stream = [Request("k", facts, 10, 100, 100, tenant="t")] * 120
    short = figures(run(byte_class(), stream), stream, warm_up=0)
    assert (False, True, True, True) == tuple(map(isnan, short.bands))
    assert isnan(short.near[0].under_counted)
    rows = list(comparison_bars(replace(comparison, mixed=comparison.mixed | {OURS: (short,)})))
    (row,) = [row for row in rows if "under-counts, from 8,192" in row]
    assert row.endswith("| not measured: no such request |")
    assert not any(" nan " in row for row in rows)


def test_the_plot_is_a_png(comparison: Comparison, tmp_path: Path) -> None:
    """The plot is drawn for each tokenizer."""
    pytest.importorskip("matplotlib")
    from extproc.evaluation.plot import plot  # noqa: PLC0415  (an extra)

    plot([comparison], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_broken_cache_is_counted_again(tmp_path: Path) -> None:
    """A cache that was cut off while it was written is replaced completely."""
    (tmp_path / "toy.json").write_text('{"abc": 1')
    toy = Tokenizer("toy", words, 4, 3, tmp_path)
    assert 2 == toy.count("two words")
    toy.save()
    assert 1 == len(json.loads((tmp_path / "toy.json").read_text()))
    assert ["toy.json"] == [file.name for file in tmp_path.iterdir()]


def test_the_command_compares_and_writes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quick run prints its report, writes it and the plot, and names the command that repeats it."""

    def smaller(requests: int, warm_up: int, seeds: tuple[int, ...]) -> Plan:
        return Plan(requests * 2 // 5, warm_up * 2 // 5, seeds)

    monkeypatch.setattr("extproc.evaluation.cases.Plan", smaller)
    monkeypatch.setattr("extproc.evaluation.made.MADE_BYTES", 8_000)
    monkeypatch.setattr("extproc.evaluation.sampled.TIMES_AS_MANY", 1)
    pytest.importorskip("tiktoken", reason="the extra dualpool[tokenizers] is not installed")
    pytest.importorskip("matplotlib", reason="the extra dualpool[plots] is not installed")
    (tmp_path / "de.txt").write_text("Der Bäcker an der Ecke verkauft, was übrig ist.\n" * 200)
    (tmp_path / "trace.csv").write_text("ContextTokens,GeneratedTokens\n100,10\n900,50\n")
    places = ["--texts", str(tmp_path), "--lengths", str(tmp_path / "trace.csv"), "--cache", str(tmp_path)]
    files = ["--report", str(tmp_path / "report.md"), "--plot", str(tmp_path / "plot.png")]
    assert 0 == main(["evaluate", "--quick", "--tokenizers", "cl100k", *places, *files])
    printed = capsys.readouterr().out
    assert (tmp_path / "report.md").read_text() in printed
    assert f"`dualpool evaluate --tokenizers cl100k --report {tmp_path}/report.md" in printed
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("only", "said"), [("budget", "### toy, under a budget"), ("kinds", "### Under-counts by kind of text")]
)
def test_the_command_can_write_one_part_alone(
    material: Material,
    toy: Tokenizer,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    only: str,
    said: str,
) -> None:
    """The run under a budget and the kinds of text can run without the rest, and name their own command."""
    texts = {**material.texts, "prose": b"Some. " * 999}
    monkeypatch.setattr("extproc.evaluation.texts.all_texts", lambda _: texts)
    monkeypatch.setattr("extproc.evaluation.unseen.unseen_texts", lambda *_: {})
    monkeypatch.setattr("extproc.evaluation.tokenizers.need_known", lambda _: None)
    monkeypatch.setattr("extproc.evaluation.tokenizers.tokenizer", lambda *_: toy)
    monkeypatch.setattr("extproc.evaluation.sampled.TIMES_AS_MANY", 1)
    (tmp_path / "trace.csv").write_text("ContextTokens,GeneratedTokens\n30,10\n90,50\n")
    report_file = tmp_path / "report.md"
    places = ["--lengths", str(tmp_path / "trace.csv"), "--report", str(report_file)]
    assert 0 == main(["evaluate", "--quick", "--only", only, "--tokenizers", "toy", *places])
    printed = capsys.readouterr().out
    assert report_file.read_text() in printed
    assert f"`dualpool evaluate --tokenizers toy --report {report_file} --only {only} --quick`" in printed
    assert said in printed
    assert "### The mix" not in printed


def test_a_contestant_may_start_without_a_vocabulary(material: Material, toy: Tokenizer) -> None:
    """The prior without a vocabulary changes the first estimate."""
    stream = list(mixed(material, toy, 1, seed=5))
    usual, other = byte_class(), byte_class(left_out="o200k")
    assert usual.predict(stream[0]) != other.predict(stream[0])
