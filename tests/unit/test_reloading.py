"""The settings that a running router takes over from a changed file."""

import pytest

from extproc.config.loading import parse
from extproc.config.reloading import in_force

TLS = "certificate_file: {0}.pem, private_key_file: {0}.key"
CHANGES = [
    "mode: shadow",
    "pools: [{name: tiny, max_budget_tokens: 5}, {name: long, max_budget_tokens: 9}]",
    "exchange: {deadline_ms: 90}",
    "headers: {pool: x-pool}",
    "tenant_header: x-tenant",
    "estimator: {kind: ema}",
    "estimator: {byteclass: {epsilon: 0.05}}",
    "learning: {messages_per_s: 5}",
    "drain_s: 1",
    "log_level: debug",
    "listen: {idle_s: 9}",
]


@pytest.mark.parametrize("change", CHANGES)
def test_settings_that_are_reloaded(change: str) -> None:
    """Thresholds, pools, limits, mode, names, estimator and learning options, and the log level are taken over."""
    assert (parse(change), ()) == in_force(parse(""), parse(change))


@pytest.mark.parametrize(
    ("change", "waiting"),
    [
        ("listen: {address: '127.0.0.1:1'}", ("listen.address",)),
        (
            "listen: {health_address: '127.0.0.1:1', max_message_bytes: 2000000}",
            ("listen.health_address", "listen.max_message_bytes"),
        ),
        ("admin: {address: '127.0.0.1:1'}", ("admin",)),
        ("metrics: {max_models: 9}\nadmin: {address: '127.0.0.1:1'}", ("admin", "metrics")),
    ],
)
def test_settings_that_wait_for_a_restart(change: str, waiting: tuple[str, ...]) -> None:
    """Addresses and objects built once at startup keep their values and are
    named; the rest of the file is in force.
    """
    assert (parse("mode: shadow"), waiting) == in_force(parse(""), parse(f"{change}\nmode: shadow"))


@pytest.mark.parametrize("change", [each for each in CHANGES if each.startswith("estimator")])
def test_the_estimator_of_routers_that_share_waits_for_a_restart(change: str) -> None:
    """What the store holds was learned under the current settings; the rest of the file is in force."""
    store = "state: {store: {url: 'redis://127.0.0.1/0'}}"
    now, waiting = in_force(parse(store), parse(f"{store}\n{change}\nmode: shadow"))
    assert (parse(f"{store}\nmode: shadow"), ("estimator",)) == (now, waiting)


@pytest.mark.parametrize(
    ("before", "after", "waits"),
    [
        ("", TLS.format("a"), True),
        (TLS.format("a"), "", True),
        (TLS.format("a"), TLS.format("b"), False),
        (TLS.format("a"), TLS.format("a") + ", client_ca_file: ca.pem", True),
        (TLS.format("a") + ", client_ca_file: ca.pem", TLS.format("b") + ", client_ca_file: other.pem", False),
    ],
)
def test_tls_files_may_change(before: str, after: str, *, waits: bool) -> None:
    """Other TLS files are used; whether TLS is on, and whether clients need a certificate, is fixed at startup."""
    running, wanted = (parse(f"listen: {{tls: {{{files}}}}}" if files else "") for files in (before, after))
    now, waiting = in_force(running, wanted)
    assert (("listen.tls",) if waits else ()) == waiting
    assert (running if waits else wanted).listen.tls == now.listen.tls
