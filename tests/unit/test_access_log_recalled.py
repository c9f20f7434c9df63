"""What an entry of the access log says about the beginning of its conversation."""

import numpy as np
import pytest
from msgspec.structs import replace

from extproc.access_log.recalled import packed_recalled, recalled_from
from extproc.core.estimator.prefixes import Known, Recalled

KNOWN = Known(900, 3, 4_000, np.ones(2, np.float32))


@pytest.mark.parametrize("known", [None, KNOWN])
def test_the_process_that_knows_a_conversation_is_told_its_keys(known: Known | None) -> None:
    """And the tokens that were known, so that it finds out whether they still are; it has the rest itself."""
    recalled = Recalled(11, 5, 6_000, known, 0 if known is None else 22)
    back = recalled_from(packed_recalled(recalled), continued=known is not None)
    assert back is not None
    assert (11, 5, 6_000, recalled.known_key) == (back.key, back.messages, back.messages_bytes, back.known_key)
    assert (known and known.tokens) == (back.known and back.known.tokens)
    assert back.known is None or not back.known.x.size


def test_another_process_is_told_only_whether_the_beginning_was_known() -> None:
    """Its bound was then not that of a whole prompt, and is not judged as one; there is no key to remember."""
    said = packed_recalled(Recalled(11, 5, 6_000, KNOWN, 22))
    assert said is not None
    for sent in (replace(said, origin=said.origin ^ 1), packed_recalled(None)):
        assert recalled_from(sent, continued=False) is None
        back = recalled_from(sent, continued=True)
        assert back is not None
        assert back.known is not None
        assert (0, 0, 0) == (back.key, back.known_key, back.known.x.size)
