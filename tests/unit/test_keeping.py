"""Where learned state is kept: a file and a store at once."""

from pathlib import Path

import pytest

from extproc.state.file import StateFile, write_atomically
from extproc.state.frame import framed
from extproc.state.keeping import Keeping
from extproc.state.settings import StateSettings
from extproc.state.snapshot import to_message
from tests.unit.redis_server import RedisServer
from tests.unit.sharing_replica import TERMS, Replica


def begun(server: RedisServer, path: Path) -> tuple[Replica, Keeping]:
    """Return a replica that has begun with a file and a store."""
    replica = Replica(server.url)
    settings = StateSettings(str(path), store=replica.settings)
    keeping = Keeping(settings, TERMS, lambda: replica.estimator, replica._ask, replica)
    keeping.begin()
    return replica, keeping


def test_replicas_that_begin_with_copies_of_a_file_count_it_once(server: RedisServer, tmp_path: Path) -> None:
    """Where the store holds nothing, as after it was emptied, the file is what all share, not each one's own."""
    taught = Replica(server.url)
    taught.learn(40)
    StateFile(tmp_path / "state").save(taught.estimator.state())
    first, keeping = begun(server, tmp_path / "state")
    second, _ = begun(server, tmp_path / "state")
    keeping.end()
    new = Replica(server.url)
    new.exchange(2)
    assert [40, 40, 40] == [first.responses, second.responses, new.responses]


@pytest.mark.parametrize(("field", "value"), [("weight", -1.0), ("spread", 1e300)])
def test_a_file_whose_numbers_do_not_merge_is_set_aside(
    field: str, value: float, server: RedisServer, tmp_path: Path
) -> None:
    """A router with a store starts all the same: its exchanges would fail for ever."""
    taught = Replica(server.url)
    taught.learn(40)
    message = to_message(taught.estimator.state())
    setattr(message.models[0], field, value)
    write_atomically(tmp_path / "state", framed(message.SerializeToString()))
    replica, _ = begun(server, tmp_path / "state")
    assert ([True], 0) == (replica.done, replica.responses)
    assert ["state.unusable-1"] == [each.name for each in tmp_path.iterdir() if each.name.startswith("state")]
