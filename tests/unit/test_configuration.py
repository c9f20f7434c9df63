from pathlib import Path

import pytest

from extproc.config.loading import as_json, load, parse
from extproc.config.schema import Configuration
from extproc.core.errors import ConfigurationError


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
        ("mode: enforced", "mode: 'enforced' given; invalid enum value"),
        ("log_level: loud", "log_level: 'loud' given"),
        ("listen: {address: '127.0.0.1:99999'}", "listen.address: '127.0.0.1:99999' given; host:port"),
        ("admin: {address: nonsense}", "admin.address: 'nonsense' given; host:port"),
        ("admin: {address: '127.0.0.1:-1'}", "admin.address: '127.0.0.1:-1' given"),
        ("- 1", r"\[1\] given; a mapping"),
        ("tenant_header: X-Tenant", "tenant_header: 'X-Tenant' given; a lower-case header name"),
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


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """The file's name is in the message."""
    with pytest.raises(ConfigurationError, match=r"nothing\.yaml"):
        load(tmp_path / "nothing.yaml")


def test_secrets_are_not_shown() -> None:
    """The private key's place is not on the admin page."""
    shown = as_json(parse("listen: {tls: {certificate_file: c.pem, private_key_file: /secret/key.pem}}"))
    assert b"c.pem" in shown
    assert b"/secret" not in shown
