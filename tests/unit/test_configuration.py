import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.config.loading import load, parse
from extproc.config.schema import Configuration
from extproc.core.errors import ConfigurationError
from extproc.core.placing.decision import Mode


def test_an_empty_file_has_all_defaults() -> None:
    """Every setting has a default."""
    assert Configuration() == parse("") == parse("# nothing\n")


CREDENTIALS = (
    *("x-api-key", "api-key", "apikey", "x-goog-api-key", "x-amz-security-token", "x-auth-token", "private-token"),
    *("ocp-apim-subscription-key", "x-functions-key", "cf-access-jwt-assertion", "cf-access-client-secret"),
    *("x-forwarded-access-token", "x-forwarded-client-cert", "x-amzn-oidc-data", "x-amzn-oidc-accesstoken"),
    *(
        "x-goog-iap-jwt-assertion",
        "x-serverless-authorization",
        "helicone-auth",
        "set-cookie",
        "dpop",
        "x_api_key",
    ),
)
ORDERS = ("x-envoy-original-path", "x-gateway-destination-endpoint", "x-gateway-destination-endpoint-subset")
OTHERS = (*ORDERS, "x-gateway-model-name", "x-forwarded-for", "traceparent", "x-request-id", "x-amz-date")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pool: []", "pool: no such setting; allowed here: mode, listen"),
        ("traces: {endpoint: 'http://h/v1/traces?token=x'}", "traces.endpoint: .* without a password or a query"),
        (
            "traces: {endpoint: 'grpc://h'}",
            "traces.endpoint: 'grpc://h' given; allowed: an http:// or https:// URL",
        ),
        ("listen: {socket_mode: '999'}", "listen.socket_mode: '999' given; allowed: three or four octal digits"),
        ("listen: {socket_owner: 'a:b:c'}", "listen.socket_owner: 'a:b:c' given; allowed: user, user:group"),
        ("listen: {socket_owner: '99999999999'}", "socket_owner: '99999999999' given; .*0 to 4294967294"),
        ("listen: {socket_owner: ':4294967295'}", "socket_owner: ':4294967295' given; .*0 to 4294967294"),
        (f"listen: {{address: 'unix:/{'é' * 54}'}}", "a socket's path has at most 107 bytes"),
        ("listen: {address: 'unix:/run/..'}", "listen.address: 'unix:/run/..' given"),
        ("listen: {address: 'unix:/run/'}", "listen.address: 'unix:/run/' given"),
        ("state: {path: /}", "state.path: '/' given; allowed: the name of a file"),
        ("state: {path: ..}", r"state.path: '\.\.' given; allowed: the name of a file"),
        (
            "state: {path: /var/lib/dualpool/}",
            "state.path: '/var/lib/dualpool/' given; allowed: the name of a file",
        ),
        ('state: {path: "a\\0b"}', "state.path: .* given; allowed: text without a null character"),
        (
            "state: {store: {url: 'redis://h', every_s: 60, keep_s: 599}}",
            "state.store.keep_s: 599 given; allowed: at least 10 times state.store.every_s, 60",
        ),
        ("state: {store: {url: 'redis://h', name: ''}}", "state.store.name: '' given; allowed: 1 to 64 printable"),
        ("pools: [{name: a, max_budget_tokens: 1, models: ['']}]", r"models\[0\]: '' given; allowed: 1 to 256"),
        (
            "pools: [{name: a, max_budget_tokens: 1, endpoints: {}}, {name: b, max_budget_tokens: 2}]",
            r"pools\[0\].endpoints: none given; allowed: some of urls, dns and file",
        ),
        (
            (
                "pools: [{name: a, max_budget_tokens: 1, endpoints: {dns: 'http://h:99999'}}, "
                "{name: b, max_budget_tokens: 2, endpoints: {urls: ['http://h', 'http://h:0', 'http://[::1:80']}}]"
            ),
            r"(?s)pools\[0\].endpoints.dns: 'http://h:99999' .*urls\[1\]: .*urls\[2\]: ",
        ),
        (
            "{listen: {address: '127.0.0.1:9090'}, admin: {probes_address: 'localhost:9090'}}",
            "admin.address: '127.0.0.1:9090' given; allowed: another port than listen.address's$",
        ),
        (
            "{listen: {address: '[::]:9002', health_address: '10.0.0.1:9002'}}",
            "listen.health_address: '10.0.0.1:9002' given; allowed: another port than listen.address's",
        ),
        (
            "{listen: {address: '0.0.0.0:9002', health_address: '10.0.0.1:9002'}}",
            "listen.health_address: '10.0.0.1:9002' given; allowed: another port than listen.address's",
        ),
        (
            "admin: {address: '127.0.0.1:81', probes_address: '0.0.0.0:81'}",
            "admin.probes_address: '0.0.0.0:81' given; allowed: another port than admin.address's",
        ),
        ("listen: {adress: x}", "listen.adress: no such setting; allowed here: address, socket_mode, "),
        (
            "pools: [{name: a, max_budget_tokens: many}]",
            r"pools\[0\].max_budget_tokens: 'many' given; allowed: a whole number of at least 1",
        ),
        ("pools: [{name: a, size: 1}]", r"pools\[0\].size: no such setting"),
        ("exchange: {deadline_ms: 0}", "exchange.deadline_ms: 0 given; allowed: a whole number from 1 to 60,000"),
        (
            "estimator: {byteclass: {epsilon: 0}}",
            "estimator.byteclass.epsilon: 0 given; allowed: a number above 0 and below 1",
        ),
        (
            "estimator: {byteclass: {epsilon: 1}}",
            "estimator.byteclass.epsilon: 1 given; allowed: a number above 0 and below 1",
        ),
        ("estimator: {byteclass: {epsilon: .nan}}", "estimator.byteclass.epsilon: nan given"),
        ("estimator: {byteclass: {forgetting: 1.0}}", "estimator.byteclass.forgetting: 1.0 given; .* below 1"),
        ("estimator: {byteclass: {forgetting: 0}}", "estimator.byteclass.forgetting: 0 given; .* above 0"),
        (
            "estimator: {output_epsilon: 0.0005}",
            "estimator.output_epsilon: 0.0005 given; allowed: a number from 0.001 to 0.5",
        ),
        ("estimator: {output_epsilon: 0.6}", "estimator.output_epsilon: 0.6 given; .* to 0.5"),
        ("estimator: {ema: {decay: 1.5}}", "estimator.ema.decay: 1.5 given; .* below 1"),
        ("estimator: {ema: {decay: -1}}", "estimator.ema.decay: -1 given; .* above 0"),
        (
            "estimator: {ema: {margin_deviations: -1}}",
            "estimator.ema.margin_deviations: -1 given; allowed: a number of at least 0",
        ),
        ("estimator: {ema: {initial_bytes_per_token: 0.5}}", "initial_bytes_per_token: 0.5 given; .* from 1"),
        ("estimator: {ema: {initial_bytes_per_token: 17}}", "initial_bytes_per_token: 17 given; .* to 16"),
        (
            "estimator: {media_tokens: {image_large: -1}}",
            "estimator.media_tokens.image_large: -1 given; .* of at least 0",
        ),
        (
            "estimator: {media_tokens: {image: 9}}",
            "estimator.media_tokens.image: no such setting; allowed here: image_small, image_medium",
        ),
        (
            "exchange: {max_answer_bytes: 4194304}",
            r"exchange.max_answer_bytes: no such setting; it is named exchange\.max_response_bytes now$",
        ),
        ("estimator: {default_output_tokens: -1}", "estimator.default_output_tokens: -1 given; .* of at least 0"),
        ("estimator: {young_observations: -1}", "estimator.young_observations: -1 given; .* of at least 0"),
        ("estimator: {max_models: 0}", "estimator.max_models: 0 given; .* of at least 1"),
        ("estimator: {max_categories: 0}", "estimator.max_categories: 0 given; .* of at least 1"),
        ("mode: enforced", "mode: 'enforced' given; allowed: enforce, shadow, off$"),
        ("mode: on", "mode: 'on' given; allowed: enforce"),
        ("mode: [off]", r"mode: \['off'\] given; allowed: enforce"),
        ("log_level: loud", "log_level: 'loud' given; allowed: debug, info, warning, error$"),
        ("estimator: {kind: EMA}", "estimator.kind: 'EMA' given; allowed: byteclass, ema$"),
        ("mode: off\nlog_level: info\nmode: shadow", "mode: given twice, again in line 3"),
        ("exchange: {deadline_ms: 1, deadline_ms: 2}", "deadline_ms: given twice"),
        (
            "exchange: {deadline_ms: 60001}",
            "exchange.deadline_ms: 60001 given; allowed: a whole number from 1 to 60,000",
        ),
        ("listen: {max_message_bytes: 1073741825}", "max_message_bytes: 1073741825 given; .* to 1,073,741,824"),
        ("drain_s: -1", "drain_s: -1 given; allowed: a number from 0 to 3,600"),
        ("drain_s: 1e9", "drain_s: 1000000000.0 given; .* to 3,600"),
        ("drain_s: 3601", "drain_s: 3601 given; .* to 3,600"),
        ("drain_s: .inf", "drain_s: inf given; allowed: a finite number"),
        ("drain_s: .nan", "drain_s: nan given; allowed: a finite number"),
        (
            "exchange: {max_held_bytes: 9007199254740993}",
            "max_held_bytes: 9007199254740993 given; .* 2[*][*]53",
        ),
        ("mode: 0x" + "f" * 5_000, "mode: a number of 20000 bits given"),
        ("learning: {messages_per_s: -1}", "learning.messages_per_s: -1 given; allowed: a number of at least 0"),
        ("learning: {messages_per_s: .inf}", "learning.messages_per_s: inf given; allowed: a finite number"),
        (
            "learning: {burst_messages: -0.5}",
            "learning.burst_messages: -0.5 given; allowed: a number of at least 0",
        ),
        ("learning: {burst_messages: .nan}", "learning.burst_messages: nan given; allowed: a finite number"),
        (
            "estimator: {ema: {margin_deviations: .inf}}",
            "ema.margin_deviations: inf given; allowed: a finite number",
        ),
        ("estimator: {cap_output_tokens: yes}", "cap_output_tokens: 'yes' given; allowed: true or false"),
        ("listen: {address: '127.0.0.1:99999'}", "listen.address: '127.0.0.1:99999' given; allowed: host:port"),
        ("admin: {address: nonsense}", "admin.address: 'nonsense' given; allowed: host:port"),
        ("admin: {address: '127.0.0.1:-1'}", "admin.address: '127.0.0.1:-1' given"),
        ("listen: {address: '::1:9002'}", "listen.address: '::1:9002' given; .* IPv6 hosts in brackets"),
        ("listen: {address: 'unix:'}", "listen.address: 'unix:' given; allowed: host:port, or unix:/path"),
        ("listen: {address: 'unix://'}", "listen.address: 'unix://' given"),
        ("- 1", r"\[1\] given; allowed: a mapping"),
        ("tenant_header: X-Tenant", "tenant_header: 'X-Tenant' given; allowed: a lower-case header name"),
        ("tenant_header: ':authority'", "tenant_header: ':authority' given; allowed: a lower-case header name"),
        (
            "tenant_header: content-encoding",
            "tenant_header: 'content-encoding' given; allowed: any except connection, .*te",
        ),
        ("headers: {pool: host}", "headers.pool: 'host' given; allowed: any except connection, content-encoding"),
        ("headers: {estimate: content-length}", "headers.estimate: 'content-length' given; allowed: any except"),
        ("headers: {reason: transfer-encoding}", "headers.reason: 'transfer-encoding' given; allowed: any except"),
        ("headers: {pool: ':path'}", "headers.pool: ':path' given; allowed: a lower-case header name"),
        ("tenant_header: authorization", "tenant_header: 'authorization' given; .* credential .* metric's label"),
        *((f"tenant_header: {name}", f"tenant_header: '{name}' given; .* credential") for name in CREDENTIALS),
        *((f"headers: {{estimate: {name}}}", f"headers.estimate: '{name}' given; .*") for name in CREDENTIALS),
        *((f"tenant_header: {name}", f"tenant_header: '{name}' given; it belongs to") for name in ORDERS),
        *((f"headers: {{pool: {name}}}", f"headers.pool: '{name}' given; it belongs to") for name in OTHERS),
        ("headers: {pool: cookie}", "headers.pool: 'cookie' given; .* credential .* overwritten"),
        ("headers: {pool: x, estimate: x}", "headers.pool and headers.estimate: 'x' given for each; .* differ"),
        (
            "pools: [{name: b, max_budget_tokens: 9}, {name: a, max_budget_tokens: 5}]",
            r"max_budget_tokens \[9, 5\] must be positive and ascend",
        ),
        (
            "pools: [{name: 'a b', max_budget_tokens: 5}, {name: c, max_budget_tokens: 9}]",
            r"pools\[0\].name: 'a b'",
        ),
        ("a: [", "not YAML"),
        ("{a: " * 5_000, "nested too deeply; at most 32 levels"),
        ("drain_s: 2001-99-99", "drain_s: '2001-99-99' given; allowed: a number"),
        ("drain_s: " + "9" * 5_000, "not YAML: Exceeds the limit"),
        ("drain_s: !!timestamp x", "not YAML"),
        ("pools: &a [*a]", "nested too deeply; .* no alias of itself"),
        ("listen: {tls: {certificate_file: c}}", "listen.tls.private_key_file: missing; allowed: a file"),
    ],
)
def test_a_fault_names_field_value_and_what_is_allowed(text: str, said: str) -> None:
    """Each fault in a configuration is one sentence."""
    with pytest.raises(ConfigurationError, match=said):
        parse(text)


def test_all_faults_are_reported_at_once() -> None:
    """Unknown settings, wrong values, repeated keys and contradictions are all in one error."""
    text = """
mode: on
mode: off
listen: {adress: x, address: nowhere, tls: {client_ca_file: 1}}
pools: [{name: 'a b', max_budget_tokens: many}, {name: c, max_budget_tokens: 0, size: 1}, 7]
headers: {pool: host, reason: 5, estimate: x-mine}
tenant_header: x-mine
drain_s: .nan
"""
    with pytest.raises(ConfigurationError) as refused:
        parse(text)
    assert {
        "mode: given twice, again in line 3",
        "mode: 'on' given",
        "listen.adress: no such setting",
        "listen.address: 'nowhere' given",
        "listen.tls.client_ca_file: 1 given",
        "listen.tls.certificate_file: missing",
        "listen.tls.private_key_file: missing",
        "pools[0].name: 'a b' given",
        "pools[0].max_budget_tokens: 'many' given",
        "pools[1].max_budget_tokens: 0 given",
        "pools[1].size: no such setting",
        "pools[2]: 7 given",
        "headers.pool: 'host' given",
        "headers.reason: 5 given",
        "headers.estimate and tenant_header: 'x-mine' given for each",
        "drain_s: nan given",
    } == {sentence.partition(";")[0] for sentence in refused.value.sentences}
    lines = str(refused.value).splitlines()
    assert ["16 errors", *(f"  {sentence}" for sentence in refused.value.sentences)] == lines


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
SETTINGS = (
    "mode",
    "listen",
    "admin",
    "pools",
    "headers",
    "tenant_header",
    "exchange",
    "drain_s",
    "address",
    "name",
)


@given(st.dictionaries(st.sampled_from(SETTINGS), VALUES | st.dictionaries(st.sampled_from(SETTINGS), VALUES)))
@settings(max_examples=60, deadline=None)
def test_any_value_is_accepted_or_reported(document: dict[str, object]) -> None:
    """Any value of a setting leads either to a Configuration or to a ConfigurationError of at most 2 KB."""
    try:
        parse(json.dumps(document).replace("NaN", ".nan").replace("Infinity", ".inf"))
    except ConfigurationError as error:
        assert len(str(error).encode()) <= 2_000  # noqa: PT017  (either outcome is right)


def test_the_ends_of_ranges_are_allowed() -> None:
    """Values at both ends of each inclusive range are accepted."""
    estimator = parse(
        "estimator: {output_epsilon: 0.5, default_output_tokens: 0, young_observations: 0, max_models: 1,"
        " max_categories: 1, media_tokens: {image_small: 0, video: 0},"
        " ema: {initial_bytes_per_token: 16, margin_deviations: 0}}"
    ).estimator
    assert (0.5, 0, 1, 1) == (
        estimator.output_epsilon,
        estimator.default_output_tokens,
        estimator.max_models,
        estimator.max_categories,
    )
    assert (0, 0, 1_024, 16.0) == (
        estimator.media_tokens.image_small,
        estimator.media_tokens.video,
        estimator.media_tokens.image_medium,
        estimator.ema.initial_bytes_per_token,
    )


@pytest.mark.parametrize(("word", "mode"), [("off", Mode.OFF), ("shadow", Mode.SHADOW), ("'off'", Mode.OFF)])
def test_a_mode_needs_no_quotes(word: str, mode: Mode) -> None:
    """`mode: off` is the mode, not a YAML 1.1 boolean."""
    assert mode is parse(f"mode: {word}").mode


@pytest.mark.parametrize(("word", "value"), [("true", True), ("True", True), ("false", False), ("FALSE", False)])
def test_true_and_false_are_booleans(word: str, *, value: bool) -> None:
    """A switch is written as true or false."""
    assert value is parse(f"estimator: {{cap_output_tokens: {word}}}").estimator.cap_output_tokens


@pytest.mark.parametrize(
    "name", ["x-tenant", "x-tenant-id", "x-gateway-inference-fairness-id", "x-forwarded-user", "x-tokens-of"]
)
def test_headers_that_carry_no_credential_name_the_tenant(name: str) -> None:
    """A gateway's fairness id or a proxy's user name may be read, but not set."""
    assert name == parse(f"tenant_header: {name}").tenant_header


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:9002", "localhost:1", "unix:/a", "unix:a", "unix:///a"])
def test_addresses_of_all_kinds_are_accepted(address: str) -> None:
    """A host, an IPv6 host in brackets, and the path of a socket are addresses."""
    assert address == parse(f"listen: {{address: '{address}'}}").listen.address


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    """The message contains the file's name."""
    with pytest.raises(ConfigurationError, match=r"nothing\.yaml"):
        load(tmp_path / "nothing.yaml")
