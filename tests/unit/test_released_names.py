"""What a release has named stays, or the changelog says under which name it is found now."""

from functools import reduce
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest

from extproc.config.schema import Configuration
from extproc.config.typed import RENAMED, dataclass_in, settings_of

ROOT = Path(__file__).parents[2]
METRICS = """
dualpool_actual_completion_tokens dualpool_actual_prompt_tokens dualpool_actual_total_tokens
dualpool_answers_not_learned_total dualpool_bodies_not_understood_total dualpool_bound_ratio
dualpool_budget_tokens dualpool_bytes_per_token dualpool_clipped_observations_total
dualpool_context_overflows_total dualpool_decision_seconds dualpool_estimate_ratio dualpool_estimates_total
dualpool_exceptions_total dualpool_misconfigured_total dualpool_misroutes_repaired_total
dualpool_passed_requests_total dualpool_processing_seconds dualpool_refused_observations_total
dualpool_requests_total dualpool_streams_kept_total dualpool_streams_open dualpool_streams_released_total
dualpool_streams_total dualpool_truncated_by_pool_total dualpool_under_counted_total
"""
SETTINGS = """
admin.address drain_s estimator.byteclass.epsilon estimator.byteclass.forgetting estimator.cap_output_tokens
estimator.default_output_tokens estimator.ema.decay estimator.ema.initial_bytes_per_token
estimator.ema.margin_deviations estimator.kind estimator.max_categories estimator.max_models
estimator.media_tokens.audio estimator.media_tokens.image_large estimator.media_tokens.image_medium
estimator.media_tokens.image_small estimator.media_tokens.image_unknown estimator.media_tokens.video
estimator.output_epsilon estimator.young_observations exchange.deadline_ms exchange.max_answer_bytes
exchange.max_held_bytes headers.estimate headers.pool headers.reason learning.burst_messages
learning.messages_per_s listen.address listen.max_message_bytes listen.tls.certificate_file
listen.tls.client_ca_file listen.tls.private_key_file log_level metrics.max_categories metrics.max_models mode
pools.max_budget_tokens pools.name tenant_header
"""


def takes(path: str) -> bool:
    """Return whether there is a setting of this path."""

    def below(kind: Any, name: str) -> Any:
        inner = dataclass_in(get_args(kind)[0] if get_origin(kind) is tuple else kind)
        return settings_of(inner).get(name) if inner else None

    return reduce(below, path.split("."), Configuration) is not None


@pytest.mark.parametrize("name", METRICS.split())
def test_a_metric_of_0_1_0_is_found(name: str) -> None:
    """Each metric of 0.1.0 is in the reference, or the changelog names it."""
    assert f"`{name}`" in (ROOT / "docs" / "metrics.md").read_text() + (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("path", SETTINGS.split())
def test_a_setting_of_0_1_0_is_found(path: str) -> None:
    """Each setting of 0.1.0 is accepted under its name, or its error tells the new name, as the changelog does."""
    assert takes(path) or f"`{path}`" in (ROOT / "CHANGELOG.md").read_text()
    assert takes(RENAMED.get(path, path))
