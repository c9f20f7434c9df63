"""The inverse of a symmetric positive definite matrix, for least_squares.py.

With M = L L^T (Cholesky) the inverse is L^-T L^-1, symmetric to the bit. numpy lacks LAPACK's potri, so L^-1 is
made from its halves. Rejected: LAPACK's inverse of any matrix, which is not symmetric and takes more steps, since
the factor is needed in any case, to tell whether M is positive definite; halving M itself (Schur's complement),
which loses all digits where the condition is bad.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_CONDITION", "inverse_of"]

Matrix = npt.NDArray[np.float64]

# Doubles have 16 digits; a solution with fewer than six accurate ones is not used. The condition is judged by the
# inverse's largest element, since the matrix is scaled to a unit diagonal.
MAX_CONDITION = 1e10


def inverse_of(matrix: Matrix) -> Matrix | None:
    """Return the inverse of a symmetric matrix with a unit diagonal; None if too few of its digits are accurate.

    None also if it is not positive definite, as after sums from elsewhere that no responses make.
    """
    try:
        of_factor = _inverse_of_triangle(np.linalg.cholesky(matrix).astype(np.float64, copy=False))
    except np.linalg.LinAlgError:
        return None
    inverse: Matrix = of_factor.T.dot(of_factor)
    return inverse if np.abs(inverse).max() < MAX_CONDITION else None  # also refuses NaN


def _inverse_of_triangle(lower: Matrix) -> Matrix:
    """Return the inverse of a lower triangle: that of (A 0; B D) is (A^-1 0; -D^-1 B A^-1  D^-1)."""
    half = len(lower) // 2
    inverse = np.zeros_like(lower)
    inverse[:half, :half] = np.linalg.inv(lower[:half, :half])
    inverse[half:, half:] = np.linalg.inv(lower[half:, half:])
    inverse[half:, :half] = inverse[half:, half:].dot(lower[half:, :half]).dot(-inverse[:half, :half])
    return inverse
