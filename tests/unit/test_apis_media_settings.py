"""SGLang's settings for the media of one request, which decide how many tokens they take."""

import json
from typing import Any

import pytest

from extproc.core.apis import read_request
from extproc.core.facts import Api

DATA = "data:image/png;base64," + "A" * 5_000
MEDIA = ["image_url", "video_url"]


def is_unseen(kind: str, media: dict[str, Any] | None = None, **settings: object) -> bool:
    """Return whether the body of a chat with an image, a video or text does not show the prompt's tokens."""
    part = {"type": "text", "text": "Hi"} if kind == "text" else {"type": kind, kind: media or {"url": DATA}}
    body = {"messages": [{"role": "user", "content": [part]}], **settings}
    return read_request(Api.CHAT, json.dumps(body).encode()).unseen_history


@pytest.mark.parametrize(
    "setting",
    [
        {"max_dynamic_patch": 40},
        {"min_dynamic_patch": 12},
        {"images_config": {"max_pixels": 1}},
        {"video_config": {"fps": 8}},
        {"use_audio_in_video": True},
    ],
)
@pytest.mark.parametrize("kind", [*MEDIA, "audio_url"])
def test_a_setting_for_all_media_is_of_unknown_effect(kind: str, setting: dict[str, Any]) -> None:
    """Next to text, or null, it has none."""
    assert is_unseen(kind, **setting)
    assert not is_unseen(kind, **dict.fromkeys(setting))
    assert not is_unseen("text", **setting)


@pytest.mark.parametrize("kind", MEDIA)
@pytest.mark.parametrize(
    "key",
    [
        *("max_dynamic_patch", "min_dynamic_patch", "max_long_side_pixel"),
        *("fps", "max_frames", "max_tokens_per_frame", "max_image_tokens"),
    ],
)
def test_an_image_or_a_video_may_have_one_of_its_own(kind: str, key: str) -> None:
    """It is before or behind the URL, however long that is."""
    assert is_unseen(kind, {"url": DATA, key: 40})
    assert is_unseen(kind, {key: 40, "url": DATA})
    assert not is_unseen(kind, {"url": DATA, key: None})
    assert not is_unseen(kind, {"url": f"http://x?{key}=40"})


@pytest.mark.parametrize("kind", MEDIA)
def test_white_space_around_a_setting_does_not_hide_it(kind: str) -> None:
    """A null remains none with it."""
    for value, is_one in (("40", True), ("null", False)):
        media = f'{{"url": "a", "fps" \n\t : \r {value}}}'
        body = f'{{"messages": [{{"content": [{{"type": "{kind}", "{kind}": {media}}}]}}]}}'
        assert is_one == read_request(Api.CHAT, body.encode()).unseen_history


@pytest.mark.parametrize("kind", MEDIA)
def test_settings_are_looked_for_in_as_many_media_as_models_accept(kind: str) -> None:
    """So that a body with a thousand of them costs no more."""
    plain = {"type": kind, kind: {"url": "a"}}
    for before, found in ((31, True), (32, False)):
        parts = [plain] * before + [{"type": kind, kind: {"url": "a", "fps": 1}}]
        body = json.dumps({"messages": [{"content": parts}]}).encode()
        assert found == read_request(Api.CHAT, body).unseen_history


def test_what_clients_send_by_default_is_no_setting() -> None:
    """Sounds stay out of videos, and `detail` is not observed by the servers."""
    assert not is_unseen("video_url", use_audio_in_video=False)
    assert not is_unseen("image_url", {"url": DATA, "detail": "high"})


@pytest.mark.parametrize("key", ["max_dynamic_patch", "min_dynamic_patch", "max_long_side_pixel"])
def test_an_image_of_the_responses_api_has_them_next_to_its_url(key: str) -> None:
    """SGLang takes them there, and with the URL as in a chat."""

    def is_unseen_there(**image: object) -> bool:
        body = {"input": [{"role": "user", "content": [{"type": "input_image"} | image]}]}
        return read_request(Api.RESPONSES, json.dumps(body).encode()).unseen_history

    assert is_unseen_there(image_url=DATA, **{key: 40})
    assert is_unseen_there(image_url={"url": DATA, key: 40})
    assert not is_unseen_there(image_url=DATA, detail="high", **{key: None})
