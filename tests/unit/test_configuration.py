from pathlib import Path

import pytest

from extproc.config.loading import as_json, load, parse
from extproc.config.schema import Configuration
from extproc.core.errors import ConfigurationError
from extproc.core.placing.decision import Mode


def test_an_empty_file_is_all_defaults() -> None:
    """Every setting has a default."""
    assert Configuration() == parse("") == parse("# nothing\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pool: []", "pool: no such setting; allowed here: mode, listen"),
        ("listen: {adress: x}", "listen.adress: no such setting; allowed here: address, tls, max_message_bytes"),
        (
            "pools: [{name: a, max_budget_tokens: many}]",
            r"pools\[0\].max_budget_tokens: 'many' given; expected `int`",
        ),
        ("pools: [{name: a, size: 1}]", r"pools\[0\].size: no such setting"),
        ("exchange: {deadline_ms: 0}", "exchange.deadline_ms: 0 given; expected `int` >= 1"),
        ("estimator: {byteclass: {epsilon: 0}}", "estimator.byteclass.epsilon: 0 given; expected `float` > 0.0"),
        ("estimator: {byteclass: {epsilon: 1}}", "estimator.byteclass.epsilon: 1 given; expected `float` < 1.0"),
        ("estimator: {byteclass: {epsilon: .nan}}", "estimator.byteclass.epsilon: nan given"),
        ("estimator: {byteclass: {forgetting: 1.0}}", "estimator.byteclass.forgetting: 1.0 given; .* < 1.0"),
        ("estimator: {byteclass: {forgetting: 0}}", "estimator.byteclass.forgetting: 0 given; .* > 0.0"),
        ("estimator: {output_epsilon: 0.0005}", "estimator.output_epsilon: 0.0005 given; .* >= 0.001"),
        ("estimator: {output_epsilon: 0.6}", "estimator.output_epsilon: 0.6 given; .* <= 0.5"),
        ("estimator: {ema: {decay: 1.5}}", "estimator.ema.decay: 1.5 given; .* < 1.0"),
        ("estimator: {ema: {decay: -1}}", "estimator.ema.decay: -1 given; .* > 0.0"),
        ("estimator: {ema: {margin_deviations: -1}}", "estimator.ema.margin_deviations: -1 given; .* >= 0.0"),
        ("estimator: {ema: {initial_bytes_per_token: 0.5}}", "initial_bytes_per_token: 0.5 given; .* >= 1.0"),
        ("estimator: {ema: {initial_bytes_per_token: 17}}", "initial_bytes_per_token: 17 given; .* <= 16.0"),
        ("estimator: {media_tokens: {image_large: -1}}", "estimator.media_tokens.image_large: -1 given; .* >= 0"),
        (
            "estimator: {media_tokens: {image: 9}}",
            "estimator.media_tokens.image: no such setting; allowed here: image_small, image_medium",
        ),
        ("estimator: {default_output_tokens: -1}", "estimator.default_output_tokens: -1 given; .* >= 0"),
        ("estimator: {young_observations: -1}", "estimator.young_observations: -1 given; .* >= 0"),
        ("estimator: {max_models: 0}", "estimator.max_models: 0 given; .* >= 1"),
        ("estimator: {max_categories: 0}", "estimator.max_categories: 0 given; .* >= 1"),
        ("mode: enforced", "mode: 'enforced' given; allowed are enforce, shadow, off$"),
        ("mode: on", "mode: 'on' given; allowed are enforce"),
        ("mode: [off]", r"mode: \['off'\] given; allowed are enforce"),
        ("log_level: loud", "log_level: 'loud' given; allowed are debug, info, warning, error$"),
        ("estimator: {kind: EMA}", "estimator.kind: 'EMA' given; allowed are byteclass, ema$"),
        ("mode: off\nlog_level: info\nmode: shadow", "mode: given twice, again in line 3"),
        ("exchange: {deadline_ms: 1, deadline_ms: 2}", "deadline_ms: given twice"),
        ("exchange: {deadline_ms: 60001}", "exchange.deadline_ms: 60001 given; expected `int` <= 60000"),
        ("listen: {max_message_bytes: 1073741825}", "max_message_bytes: 1073741825 given; .* <= 1073741824"),
        ("drain_s: -1", "drain_s: -1 given; expected `float` >= 0.0"),
        ("drain_s: 1e9", "drain_s: '1e9' given; expected `float`"),
        ("drain_s: 3601", "drain_s: 3601 given; expected `float` <= 3600.0"),
        ("drain_s: .inf", "drain_s: inf given; a finite number"),
        ("drain_s: .nan", "drain_s: nan given; a finite number"),
        (
            "exchange: {max_held_bytes: 9007199254740993}",
            "max_held_bytes: a number of 54 bits given; .* 2[*][*]53",
        ),
        ("mode: 0x" + "f" * 5_000, "mode: a number of 20000 bits given"),
        ("learning: {messages_per_s: -1}", "learning.messages_per_s: -1 given; expected `float` >= 0.0"),
        ("learning: {messages_per_s: .inf}", "learning.messages_per_s: inf given; a finite number"),
        ("learning: {burst_messages: -0.5}", "learning.burst_messages: -0.5 given; expected `float` >= 0.0"),
        ("learning: {burst_messages: .nan}", "learning.burst_messages: nan given; a finite number"),
        ("estimator: {ema: {margin_deviations: .inf}}", "ema.margin_deviations: inf given; a finite number"),
        ("estimator: {cap_output_tokens: yes}", "cap_output_tokens: 'yes' given; expected `bool`"),
        ("listen: {address: '127.0.0.1:99999'}", "listen.address: '127.0.0.1:99999' given; host:port"),
        ("admin: {address: nonsense}", "admin.address: 'nonsense' given; host:port"),
        ("admin: {address: '127.0.0.1:-1'}", "admin.address: '127.0.0.1:-1' given"),
        ("listen: {address: '::1:9002'}", "listen.address: '::1:9002' given; .* an IPv6 host in brackets"),
        ("listen: {address: 'unix:'}", "listen.address: 'unix:' given; host:port or unix:/path is needed"),
        ("listen: {address: 'unix://'}", "listen.address: 'unix://' given"),
        ("- 1", r"\[1\] given; a mapping"),
        ("tenant_header: X-Tenant", "tenant_header: 'X-Tenant' given; a lower-case header name"),
        ("tenant_header: ':authority'", "tenant_header: ':authority' given; a lower-case header name"),
        ("tenant_header: content-encoding", "tenant_header: 'content-encoding' given; any but connection, .*te"),
        ("headers: {pool: host}", "headers.pool: 'host' given; any but connection, content-encoding"),
        ("headers: {estimate: content-length}", "headers.estimate: 'content-length' given; any but"),
        ("headers: {reason: transfer-encoding}", "headers.reason: 'transfer-encoding' given; any but"),
        ("headers: {pool: ':path'}", "headers.pool: ':path' given; a lower-case header name"),
        ("tenant_header: authorization", "tenant_header: 'authorization' given; .* credential .* metric's label"),
        ("tenant_header: x-api-key", "tenant_header: 'x-api-key' given; .* credential"),
        ("headers: {pool: cookie}", "headers.pool: 'cookie' given; .* credential .* overwritten"),
        ("headers: {pool: x, estimate: x}", "must differ"),
        (
            "pools: [{name: b, max_budget_tokens: 9}, {name: a, max_budget_tokens: 5}]",
            r"max_budget_tokens \[9, 5\] must be positive and ascend",
        ),
        (
            "pools: [{name: 'a b', max_budget_tokens: 5}, {name: c, max_budget_tokens: 9}]",
            r"pools\[0\].name: 'a b'",
        ),
        ("a: [", "not YAML"),
        ("[" * 5_000, "not YAML: maximum recursion depth"),
        ("drain_s: 2001-99-99", "not YAML: month must be in 1..12"),
        ("drain_s: " + "9" * 5_000, "not YAML: Exceeds the limit"),
        ("drain_s: !!timestamp x", "not YAML"),
        ("pools: &a [*a]", r"pools\[0\]: .* given; expected `object`, got `array`"),
        ("listen: {tls: {certificate_file: c}}", "listen.tls: .* given; object missing required field"),
    ],
)
def test_what_is_wrong_is_told_by_field_value_and_what_is_allowed(text: str, said: str) -> None:
    """Each fault in a configuration is one sentence."""
    with pytest.raises(ConfigurationError, match=said):
        parse(text)


def test_the_ends_of_ranges_are_allowed() -> None:
    """What is told as allowed is taken: both ends of each range that includes them."""
    settings = parse(
        "estimator: {output_epsilon: 0.5, default_output_tokens: 0, young_observations: 0, max_models: 1,"
        " max_categories: 1, media_tokens: {image_small: 0, video: 0},"
        " ema: {initial_bytes_per_token: 16, margin_deviations: 0}}"
    ).estimator
    assert (0.5, 0, 1, 1) == (
        settings.output_epsilon,
        settings.default_output_tokens,
        settings.max_models,
        settings.max_categories,
    )
    assert (0, 0, 1_024, 16.0) == (
        settings.media_tokens.image_small,
        settings.media_tokens.video,
        settings.media_tokens.image_medium,
        settings.ema.initial_bytes_per_token,
    )


@pytest.mark.parametrize(("word", "mode"), [("off", Mode.OFF), ("shadow", Mode.SHADOW), ("'off'", Mode.OFF)])
def test_a_mode_needs_no_quotes(word: str, mode: Mode) -> None:
    """`mode: off` is the mode, not YAML 1.1's boolean."""
    assert mode is parse(f"mode: {word}").mode


@pytest.mark.parametrize(("word", "value"), [("true", True), ("True", True), ("false", False), ("FALSE", False)])
def test_true_and_false_are_booleans(word: str, *, value: bool) -> None:
    """A switch is written as true or false."""
    assert value is parse(f"estimator: {{cap_output_tokens: {word}}}").estimator.cap_output_tokens


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:9002", "localhost:1", "unix:/a", "unix:a", "unix:///a"])
def test_addresses_of_all_kinds_are_taken(address: str) -> None:
    """A host, an IPv6 host in brackets, and the path of a socket are addresses."""
    assert address == parse(f"listen: {{address: '{address}'}}").listen.address


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """The file's name is in the message."""
    with pytest.raises(ConfigurationError, match=r"nothing\.yaml"):
        load(tmp_path / "nothing.yaml")


def test_secrets_are_not_shown() -> None:
    """The private key's place is not on the admin page."""
    shown = as_json(parse("listen: {tls: {certificate_file: c.pem, private_key_file: /secret/key.pem}}"))
    assert b"c.pem" in shown
    assert b"/secret" not in shown
