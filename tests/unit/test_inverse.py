"""The inverse that prices are solved with."""

import numpy as np
import pytest

from extproc.core.estimator.inverse import MAX_CONDITION, inverse_of


def information(size: int, ridge: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return a matrix as least_squares.py makes it: sums of half as many responses, a ridge, a unit diagonal."""
    z = np.random.default_rng(size).uniform(0, 1, (size // 2 + 1, size))
    matrix = z.T @ z + ridge * np.eye(size)
    scale = 1 / np.sqrt(matrix.diagonal())
    scaled: np.ndarray[tuple[int, int], np.dtype[np.float64]] = matrix * np.multiply.outer(scale, scale)
    return scaled


@pytest.mark.parametrize("size", [1, 2, 3, 61, 122])
@pytest.mark.parametrize(("ridge", "within"), [(1.0, 1e-10), (1e-4, 1e-7), (1e-7, 1e-3)])
def test_the_inverse_is_symmetric_to_the_bit_and_solves_the_system(size: int, ridge: float, within: float) -> None:
    """This holds for any size, and with as many digits as the condition leaves."""
    matrix = information(size, ridge)
    inverse = inverse_of(matrix)
    assert inverse is not None
    assert (inverse == inverse.T).all()
    solution = np.linspace(1, 2, size)
    assert inverse @ (matrix @ solution) == pytest.approx(solution, rel=within)


def test_a_matrix_without_a_usable_inverse_has_none() -> None:
    """Not one that is not positive definite, not one with too few accurate digits, and not one with NaN."""
    assert inverse_of(np.array([[1.0, 2.0], [2.0, 1.0]])) is None
    near = 1 - 0.1 / MAX_CONDITION
    assert inverse_of(np.array([[1.0, near], [near, 1.0]])) is None
    assert inverse_of(np.full((3, 3), np.nan)) is None
