"""The settings that a running router takes over from a changed file; all others wait for a restart.

They wait because an address is bound only once, and a setting that no code reads again must not be shown as if it
were in force.
"""

from dataclasses import fields, replace
from typing import Final

from extproc.config.schema import Configuration, ListenSettings, TlsFiles

__all__ = ["RELOADED", "in_force"]

RELOADED: Final = frozenset(
    {
        *("mode", "pools", "headers", "tenant_header", "responses_stored_by_default", "exchange", "estimator"),
        *("learning", "watch", "spill", "drain_s", "log_level", "listen.idle_s", "listen.tls"),
    }
)


def in_force(running: Configuration, wanted: Configuration) -> tuple[Configuration, tuple[str, ...]]:
    """Return the wanted configuration as far as a running router can apply it, and the settings that wait."""
    listen, waiting = _listen(running.listen, wanted.listen)
    kept = {
        field.name: getattr(running, field.name)
        for field in fields(Configuration)
        if field.name not in RELOADED and field.name != "listen"
    }
    if running.state.store is not None and running.estimator != wanted.estimator:
        # The state in the store was learned under the current estimator settings.
        kept["estimator"] = running.estimator
    waiting += [name for name, value in kept.items() if value != getattr(wanted, name)]
    return replace(wanted, **kept, listen=listen), tuple(sorted(waiting))


def _listen(running: ListenSettings, wanted: ListenSettings) -> tuple[ListenSettings, list[str]]:
    names = [field.name for field in fields(ListenSettings)]
    reloaded = {name: getattr(wanted, name) for name in names if f"listen.{name}" in RELOADED}
    if not _same_kind(running.tls, wanted.tls):
        reloaded["tls"] = running.tls
    listen = replace(running, **reloaded)
    return listen, [f"listen.{name}" for name in names if getattr(listen, name) != getattr(wanted, name)]


def _same_kind(running: TlsFiles | None, wanted: TlsFiles | None) -> bool:
    """Return whether the bound port can serve both: both with TLS or both without, and both requiring client
    certificates or neither.
    """
    if running is None or wanted is None:
        return running is wanted
    return bool(running.client_ca_file) == bool(wanted.client_ca_file)
