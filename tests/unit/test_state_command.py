"""`dualpool state`: showing, moving, merging and resetting learned state in files, routers and stores."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from extproc.cli.main import main
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.protocol import LearnedState
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.terms import Terms
from extproc.state.file import StateFile, read_state, write_atomically
from extproc.state.frame import framed
from extproc.state.pb import state_pb2
from extproc.state.snapshot import from_json, from_message, to_json, to_message
from tests.unit.byteclass_lessons import teach
from tests.unit.redis_server import redis_server
from tests.unit.sharing_replica import Replica
from tests.unit.test_state_file import LATER, refuse, taught


def state_file(path: Path, responses: int = 30, seed: int = 0) -> str:
    """Write a file of what a router has learned from its own responses (`seed`); return the file's name."""
    return saved(path, taught(responses, seed).state())


def saved(path: Path, state: LearnedState) -> str:
    """Write a state to a file; return the file's name."""
    write_atomically(path, framed(to_message(state).SerializeToString()))
    return str(path)


def run(*arguments: str) -> int:
    """Run the command."""
    return main(["state", *arguments])


def responses_in(path: Path) -> int:
    """Return how many responses of model m a file has learned from."""
    return sum(row.observations for row in read_state(path).models if row.model == "m")


def test_a_file_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a line for each model, and completely as JSON."""
    name = state_file(tmp_path / "state")
    assert 0 == run("show", name)
    table = capsys.readouterr().out
    assert "m   " in table
    assert " 30 " in table
    assert 0 == run("show", name, "--json")
    assert taught(30).state() == from_json(capsys.readouterr().out)


def test_an_empty_state_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A reset file is empty."""
    name = state_file(tmp_path / "state")
    assert 0 == run("reset", name)
    assert 0 == run("show", name)
    assert "nothing was learned\n" == capsys.readouterr().out


def test_files_merge(tmp_path: Path) -> None:
    """Knowledge that two routers learned separately adds up."""
    one, two = state_file(tmp_path / "one", 30), state_file(tmp_path / "two", 12, seed=1)
    assert 0 == run("merge", one, two, "--out", str(tmp_path / "both"))
    assert 42 == responses_in(tmp_path / "both")


def test_merged_files_weigh_as_much_as_one_router_remembers(tmp_path: Path) -> None:
    """Otherwise a router that starts with them would hardly learn anything new."""
    memory = Terms.of(EstimatorSettings()).model_memory
    names = []
    for seed in range(2):
        state = taught(30, seed).state()
        heavy = replace(state, models=tuple(replace(row, weight=0.9 * memory) for row in state.models))
        names.append(saved(tmp_path / str(seed), heavy))
    assert 0 == run("merge", *names, "--out", str(tmp_path / "both"))
    assert max(row.weight for row in read_state(tmp_path / "both").models) == pytest.approx(memory)


def test_what_has_responses_in_common_is_not_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused: a state with itself, with an earlier copy, and with that of a router that began with a copy, since
    these responses would count twice; not that of a router that only began with the same few requests.
    """
    one = state_file(tmp_path / "one", 300)
    earlier, other = state_file(tmp_path / "earlier", 200), state_file(tmp_path / "other", 200, seed=1)
    begun = ByteClassEstimator(EstimatorSettings())
    begun.load(from_message(read_state(Path(earlier))))
    teach(begun, 90, seed=2)
    from_copy = saved(tmp_path / "from copy", begun.state())
    same_probes = ByteClassEstimator(EstimatorSettings())
    teach(same_probes, 30)
    teach(same_probes, 200, seed=3)
    probed = saved(tmp_path / "probed", same_probes.state())
    out = str(tmp_path / "both")
    few = state_file(tmp_path / "few", 5)
    for pair in ((one, one), (one, earlier), (from_copy, one), (few, few)):
        assert 2 == run("merge", other, *pair, "--out", out)
        assert f"{pair[0]} and {pair[1]} hold what was learned from the same responses" in capsys.readouterr().err
        assert not Path(out).exists()
    assert 0 == run("merge", other, probed, earlier, "--out", out)


@pytest.mark.parametrize("place", ["{}/state", "store:{}/router.yaml", "http://127.0.0.1:1"])
def test_an_empty_model_name_does_not_mean_all(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unset shell variable must not make a router forget everything."""
    state_file(tmp_path / "state")
    with pytest.raises(SystemExit) as ended:
        run("reset", place.format(tmp_path), "--model", "")
    assert (2, 30) == (ended.value.code, responses_in(tmp_path / "state"))
    assert "--model: '' given; allowed: the name of a model" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_not_said_to_be_forgotten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelled name is reported by a file and by a store, which stay as they are."""
    path = tmp_path / "state"
    name, before = state_file(path), path.read_bytes()
    assert 0 == run("reset", name, "--model", "M")
    assert "nothing was learned about model 'M'\n" == capsys.readouterr().out
    assert before == path.read_bytes()
    with redis_server(tmp_path) as server:
        config = tmp_path / "config.yaml"
        config.write_text(f"state: {{store: {{url: '{server.url}'}}}}")
        assert 0 == run("import", name, f"store:{config}")
        capsys.readouterr()
        assert 0 == run("reset", f"store:{config}", "--model", "M")
        assert "the store holds nothing about model 'M'\n" == capsys.readouterr().out


def test_one_model_is_forgotten_and_unknown_fields_stay(tmp_path: Path) -> None:
    """Nothing else in the file changes, not even fields that only a later version knows."""
    path = tmp_path / "state"
    message = to_message(taught().state())
    message.MergeFromString(LATER)
    other = message.models.add()
    other.CopyFrom(message.models[0])
    other.model = "other"
    for model in ("m", "other"):
        message.outputs.add(model=model, key="k", observations=1)
    write_atomically(path, framed(message.SerializeToString()))
    assert 0 == run("reset", str(path), "--model", "m")
    left = read_state(path)
    assert ["other"] == [row.model for row in left.models]
    assert {""} == {row.model for row in left.categories}
    assert ["other"] == [row.model for row in left.outputs]
    assert LATER in left.SerializeToString()


def test_a_file_is_copied_as_it_is(tmp_path: Path) -> None:
    """Export and import keep fields that only a later version knows."""
    path = tmp_path / "state"
    message = to_message(taught().state())
    message.models[0].MergeFromString(LATER)
    write_atomically(path, framed(message.SerializeToString()))
    assert 0 == run("export", str(path), str(tmp_path / "copy"))
    assert 0 == run("import", str(tmp_path / "copy"), str(tmp_path / "new"))
    assert message == read_state(tmp_path / "new")


def test_knowledge_is_not_overwritten_by_an_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that holds learned state must be merged or reset, not replaced."""
    one, two = state_file(tmp_path / "one", 30), state_file(tmp_path / "two", 12)
    assert 2 == run("import", one, two)
    assert "already holds learned state" in capsys.readouterr().err
    assert 12 == responses_in(tmp_path / "two")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "{}/none"), "none"),
        (("show", "{}/odd"), "not a dualpool state"),
        (("show", "{}/page"), "it is JSON, as /state shows it; `dualpool state export` writes a file of state"),
        (("merge", "{}/page", "--out", "{}/out"), "it is JSON"),
        (("show", "http://127.0.0.1:1"), "127.0.0.1:1/state"),
        (("reset", "http://127.0.0.1:1"), "127.0.0.1:1/state/reset"),
        (("import", "{}/state", "http://127.0.0.1:1"), "127.0.0.1:1/state/import"),
        (("show", "store:{}/plain.yaml"), "no state.store"),
        (("show", "store:{}/nowhere.yaml"), "ConnectionError"),
        (("merge", "{}/state", "--out", "{}/none/out"), "none/out"),
        (("merge", "{}/state", "--out", ""), "Is a directory"),
        (("export", "{}/state", "/"), "Is a directory"),
        (("export", "{}/state", ".."), ".."),
    ],
)
def test_failures_are_reported_with_exit_code_2(
    arguments: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the place that cannot be read or written, and why."""
    (tmp_path / "odd").write_text("something else")
    (tmp_path / "page").write_text(to_json(taught(30).state()))
    (tmp_path / "plain.yaml").write_text("mode: shadow")
    (tmp_path / "nowhere.yaml").write_text("state: {store: {url: 'redis://127.0.0.1:1/0'}}")
    state_file(tmp_path / "state")
    assert 2 == run(*(argument.format(tmp_path) for argument in arguments))
    assert says in capsys.readouterr().err


def test_a_store_is_shown_filled_and_reset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Running routers use what is imported, and forget what is reset."""
    with redis_server(tmp_path) as server:
        config = tmp_path / "config.yaml"
        config.write_text(f"state: {{store: {{url: '{server.url}'}}}}")
        store = f"store:{config}"
        replica = Replica(server.url)
        replica.learn(20)
        replica.learn(5, model="other")
        replica.exchange()
        assert 0 == run("import", state_file(tmp_path / "more", 30), store)
        replica.exchange()
        assert 50 == replica.responses
        assert 0 == run("export", store, str(tmp_path / "all"))
        assert 50 == responses_in(tmp_path / "all")
        assert 0 == run("reset", store, "--model", "m")
        replica.learn(3)
        replica.exchange(3)
        assert 3 == replica.responses
        models = {row.model: row.observations for row in replica.estimator.state().models}
        assert {"m": 3, "other": 5} == models
        assert 0 == run("reset", store)
        replica.exchange(3)
        assert all(row.observations == 0 for row in replica.estimator.state().models)
        capsys.readouterr()
        assert 0 == run("show", store, "--json")
        rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["models"]
        assert all(row["observations"] == "0" for row in rows)


def test_a_router_starts_from_scratch_with_a_file_that_was_reset(tmp_path: Path) -> None:
    """Such a file is not foreign, so nothing is set aside."""
    path = tmp_path / "state"
    assert 0 == run("reset", state_file(path))
    assert not StateFile(path).load(refuse)
    assert [path] == list(tmp_path.iterdir())


def test_an_empty_message_has_no_kind_of_estimator() -> None:
    """What `reset` writes has no kind of estimator, so no estimator mistakes it for its own."""
    assert "" == from_message(state_pb2.LearnedState()).estimator_kind


@pytest.mark.parametrize("place", ["redis://127.0.0.1:1", "127.0.0.1:9090", "router:9090/", "[::1]:9090"])
def test_an_address_is_not_taken_for_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, place: str
) -> None:
    """Any other address is refused with what to give instead; no file of that name is read or written."""
    name = state_file(tmp_path / "state")
    monkeypatch.chdir(tmp_path)
    for action in [("show", place), ("reset", place), ("import", name, place)]:
        assert 2 == run(*action)
        assert f"{place}: an address of this kind cannot be read; give a file, store:" in capsys.readouterr().err
    assert [tmp_path / "state"] == list(tmp_path.iterdir())
