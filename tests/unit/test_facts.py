"""What facts say of themselves."""

import pytest

from extproc.core.apis import read_request
from extproc.core.facts import NO_MEDIA, Api, MediaCount, ResponseHead


def test_images_of_all_sizes_are_images() -> None:
    """Audio and video are none."""
    assert 1 + 2 + 4 + 8 == MediaCount(1, 2, 4, 8, 16, 32).images


@pytest.mark.parametrize(
    ("status", "succeeded"), [(199, False), (200, True), (201, True), (299, True), (300, False), (0, False)]
)
def test_a_2xx_succeeded(status: int, *, succeeded: bool) -> None:
    """Nothing else has."""
    assert succeeded == ResponseHead(status).succeeded


def test_a_response_that_does_not_tell_its_attempt_is_that_of_the_first() -> None:
    """Envoy tells it only where it is asked to."""
    assert 1 == ResponseHead(200).attempts


def test_counts_of_the_same_items_are_one_whatever_their_area() -> None:
    """What has no images has no area."""
    assert 0.0 == NO_MEDIA.image_patches
    assert MediaCount(1, audio=2) == MediaCount(1, audio=2, image_patches=7.5) != MediaCount(1, audio=3)


def test_a_prompt_that_is_no_conversation_has_no_messages() -> None:
    """Nor has it tools, or calls of them."""
    facts = read_request(Api.COMPLETIONS, b'{"prompt": "Once"}')
    assert (0, 0, 0) == (facts.messages, facts.tools, facts.tool_calls)
