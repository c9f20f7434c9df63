"""The numbers of GPUs over which a model's attention can be split."""

from contextlib import nullcontext
from dataclasses import replace

import pytest

from extproc.core.errors import ConfigurationError
from extproc.planning.hardware.capacity import TENSOR_PARALLEL_SIZES, capacity, smallest_tensor_parallel
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.instance import Instance
from extproc.planning.hardware.profiles import Attention


@pytest.mark.parametrize(
    ("query_heads", "kv_heads", "sizes"),
    [
        (64, 8, [1, 2, 4, 8, 16]),
        (40, 10, [1, 2]),  # Phi-4: on four GPUs vLLM ends with an assertion, because ten KV heads do not split
        (28, 4, [1, 2, 4]),  # Qwen2.5-7B
    ],
)
def test_only_instances_that_the_heads_split_over_are_planned(
    query_heads: int, kv_heads: int, sizes: list[int]
) -> None:
    """Each GPU has equally many heads, and equally many KV heads or a copy of one; others do not start."""
    shape = Attention(kind="gqa", query_heads=query_heads, kv_heads=kv_heads, head_dim=128)
    model = replace(built_in().model("llama-3-8b"), attention=shape)
    on = Instance(model, built_in().gpu("a100-80g"), 1)
    assert sizes == [size for size in TENSOR_PARALLEL_SIZES if shape.splits_over(size)]
    for size in TENSOR_PARALLEL_SIZES:
        with nullcontext() if size in sizes else pytest.raises(ConfigurationError, match="heads do not split"):
            capacity(replace(on, tensor_parallel=size), "x")
    if kv_heads == 10:
        with pytest.raises(ConfigurationError, match=r"not even 2 GPUs .* do not split over more"):
            smallest_tensor_parallel(on, 10_000_000, "x")
