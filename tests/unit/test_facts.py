"""Properties of the facts about requests and responses."""

import pytest

from extproc.core.apis import read_request
from extproc.core.facts import NO_MEDIA, Api, MediaCount, ResponseHead


def test_images_of_all_sizes_are_images() -> None:
    """Audio and video do not count as images."""
    assert 1 + 2 + 4 + 8 == MediaCount(1, 2, 4, 8, 16, 32).images


@pytest.mark.parametrize(
    ("status", "succeeded"), [(199, False), (200, True), (201, True), (299, True), (300, False), (0, False)]
)
def test_a_2xx_succeeded(status: int, *, succeeded: bool) -> None:
    """No other status counts as success."""
    assert succeeded == ResponseHead(status).succeeded


def test_a_response_without_an_attempt_count_is_from_the_first_attempt() -> None:
    """Envoy reports the attempt only if it is configured to."""
    assert 1 == ResponseHead(200).attempts


def test_counts_of_the_same_items_are_equal_whatever_their_area() -> None:
    """The area takes no part in comparisons; without images it is 0."""
    assert 0.0 == NO_MEDIA.image_patches
    assert MediaCount(1, audio=2) == MediaCount(1, audio=2, image_patches=7.5) != MediaCount(1, audio=3)


def test_a_prompt_that_is_not_a_conversation_has_no_messages() -> None:
    """It has no tools or tool calls, either."""
    facts = read_request(Api.COMPLETIONS, b'{"prompt": "Once"}')
    assert (0, 0, 0) == (facts.messages, facts.tools, facts.tool_calls)
