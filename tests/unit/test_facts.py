"""What facts say of themselves."""

import pytest

from extproc.core.facts import MediaCount, ResponseHead


def test_images_of_all_sizes_are_images() -> None:
    """Audio and video are none."""
    assert 1 + 2 + 4 + 8 == MediaCount(1, 2, 4, 8, 16, 32).images


@pytest.mark.parametrize(
    ("status", "succeeded"), [(199, False), (200, True), (201, True), (299, True), (300, False), (0, False)]
)
def test_a_2xx_succeeded(status: int, *, succeeded: bool) -> None:
    """Nothing else has."""
    assert succeeded == ResponseHead(status).succeeded
