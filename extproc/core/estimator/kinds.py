"""Keys of categories: kinds of text, which we name, and tenants, whose names come from clients."""

from typing import Final

from extproc.core.estimator.change import RESERVED
from extproc.core.estimator.codes import Script
from extproc.core.estimator.text import TextKind
from extproc.core.names import bounded_name

__all__ = ["SCRIPT_KEYS", "tenant_key"]

SCRIPT_KEYS: Final = {script: script.name.lower() for script in Script}
_TENANT: Final = "tenant:"
_KINDS: Final = frozenset({*(kind.value for kind in TextKind), *SCRIPT_KEYS.values()})


def tenant_key(tenant: str) -> str:
    """Return the key of a tenant: its name, marked as a tenant's if it could be taken for another key of ours."""
    name = bounded_name(tenant)
    return _TENANT + name if name in _KINDS or RESERVED in name or name.startswith(_TENANT) else name
