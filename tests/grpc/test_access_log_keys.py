"""The key that seals what a router sends to the access log: reloads, rotation, and a file that is gone."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from extproc.access_log.teacher import Outcome
from extproc.config.loading import parse
from extproc.core.errors import ConfigurationError
from extproc.server import log_key
from tests.grpc.served import App
from tests.grpc.test_access_logs import FROM_LOG, Log, counted, evidence_of, with_a_log
from tests.unit.log_entries import entry, log_message, token_usage

Router = Callable[..., Any]


@pytest.mark.parametrize("content", [None, b"short"])
def test_an_unusable_key_is_a_configuration_error(content: bytes | None, tmp_path: Path) -> None:
    """A key file that is missing or too short is a configuration error, raised before anything is served."""
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    settings = f"learning: {{source: access_log, access_log: {{key_file: {tmp_path / 'key'}}}}}"
    with pytest.raises(ConfigurationError, match=r"learning\.access_log\.key_file"):
        App(parse(settings))


def test_evidence_survives_a_reload(router: Router, call: type[Any], eventually: Any) -> None:
    """A process without a key file keeps its key when its configuration changes: entries in flight still teach."""

    async def act(app: App, channel: grpc.aio.Channel, log: Log) -> None:
        evidence = await evidence_of(channel, call)
        await asyncio.to_thread(app.apply, parse(f"{FROM_LOG}\nexchange: {{deadline_ms: 50}}"))
        await log.write(log_message(entry(evidence, token_usage(90, 7))))
        await eventually(lambda: counted(app, Outcome.TAUGHT) == 1)

    with_a_log(router, act)


def test_a_key_that_is_rotated_is_used_without_a_reload(
    router: Router, call: type[Any], eventually: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new key in the file seals further decisions; entries in flight, with the former one, still teach.

    So they do after a reload of other settings.
    """
    monkeypatch.setattr(log_key, "LOOKS_EVERY_S", 0.001)
    key = tmp_path / "key"
    key.write_bytes(b"o" * 32)
    settings = f"learning: {{source: access_log, access_log: {{key_file: {key}}}}}"

    async def act(app: App, channel: grpc.aio.Channel, log: Log) -> None:
        before = await evidence_of(channel, call)
        key.write_bytes(b"n" * 32)
        await eventually(lambda: app.ask(app._in_force.log_key) == (str(key), b"n" * 32))
        await log.write(log_message(*[entry(each, token_usage(90, 7)) for each in (before, before)]))
        await eventually(lambda: counted(app, Outcome.TAUGHT) == 2)
        after = await evidence_of(channel, call)
        async with router(settings) as other, grpc.aio.insecure_channel(other.grpc_address) as to_other:
            await Log(to_other).write(log_message(entry(after, token_usage(90, 7)), entry(before)))
            await eventually(lambda: counted(other, Outcome.TAUGHT) == counted(other, Outcome.FORGED) == 1)
        await asyncio.to_thread(app.apply, parse(f"{settings}\nexchange: {{deadline_ms: 50}}"))
        await log.write(log_message(entry(before, token_usage(90, 7))))
        await eventually(lambda: counted(app, Outcome.TAUGHT) == 3)

    with_a_log(router, act, settings)


def test_a_key_file_that_is_gone_is_no_obstacle_to_other_changes(router: Router, tmp_path: Path) -> None:
    """Its key stays in use, so that the mode can be changed and what was learned be forgotten. While nothing is
    learned from the log, no key is in use that could stay.
    """
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    settings = "learning: {source: access_log, access_log: {key_file: %s}}"

    async def scenario() -> None:
        async with router(settings % key) as app:
            before = app._in_force.log_key()
            key.unlink()
            off = f"{settings % key}\nmode: shadow"
            await asyncio.to_thread(app.apply, parse(off))
            assert "shadow" == app._in_force.configuration.mode
            assert "forgot everything" == await asyncio.to_thread(app.own_knowledge.forget, "")
            assert before == app._in_force.log_key()
            with pytest.raises(ConfigurationError, match=r"learning\.access_log\.key_file"):
                await asyncio.to_thread(app.apply, parse(settings % (tmp_path / "other")))
            with pytest.raises(ConfigurationError, match=r"learning\.access_log\.key_file"):
                await asyncio.to_thread(app._in_force.renew_log_key)
            await asyncio.to_thread(app.apply, parse((settings % key).replace("access_log,", "response,")))
            with pytest.raises(ConfigurationError, match=r"learning\.access_log\.key_file"):
                await asyncio.to_thread(app.apply, parse(settings % key))

    asyncio.run(scenario())
