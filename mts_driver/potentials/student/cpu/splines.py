"""Radial functions of a student as cubic splines, which the kernels read."""

from functools import lru_cache

import torch
from torch import Tensor

from mts_driver.potentials.student.model import StudentConfig, StudentModel

CELLS = 512
START_A = 0.2


def radial_table(model: StudentModel, radial: Tensor) -> Tensor:
    """Cubics of R_c of every ordered pair of elements.

    Parameters
    ----------
    radial : Tensor, shape (E, E, radial, C)
        Weights of the basis functions; the table can be differentiated by them.

    Returns
    -------
    Tensor, shape (E, E, CELLS, 4, C)
        Coefficients of powers of the position within a cell.
    """
    return torch.einsum(
        "gpk,abkc->abgpc", basis_table(model, radial.dtype).to(radial.device), radial
    )


def basis_table(model: StudentModel, dtype: torch.dtype) -> Tensor:
    """Cubics of the basis functions that radial functions are made of, (CELLS, 4, radial)."""
    return _basis_cubics(model.config.radial, model.config.cutoff_A, dtype)


def repulsion_table(model: StudentModel) -> Tensor:
    """Cubics of half the repulsion of every ordered pair of elements, (E, E, CELLS, 4)."""
    kinds = len(model.config.elements)
    cubics = _repulsion_cubics(model.config.elements, model.config.cutoff_A, model.w1.dtype)
    return cubics.view(kinds, kinds, CELLS, 4)


def cells_per_A(cutoff_A: float) -> float:
    """Inverse width of a cell."""
    return CELLS / (cutoff_A - START_A)


@lru_cache
def _basis_cubics(radial: int, cutoff_A: float, dtype: torch.dtype) -> Tensor:
    """Cubics of the basis functions, (CELLS, 4, radial)."""
    model = StudentModel(StudentConfig(elements=("H",), radial=radial, cutoff_A=cutoff_A))
    return _cubics(model.basis, cutoff_A).to(dtype)


@lru_cache
def _repulsion_cubics(elements: tuple[str, ...], cutoff_A: float, dtype: torch.dtype) -> Tensor:
    """Cubics of half the repulsion of every ordered pair of elements, (E², CELLS, 4)."""
    model = StudentModel(StudentConfig(elements=elements, cutoff_A=cutoff_A))
    kinds = torch.arange(len(elements))
    a, b = torch.cartesian_prod(kinds, kinds).T
    curves = _cubics(lambda r: 0.5 * model.repulsion(a, b, r[:, None]), cutoff_A)
    return curves.movedim(-1, 0).contiguous().to(dtype)


def _cubics(functions, cutoff_A: float) -> Tensor:
    """Hermite cubics of ``functions(r) (G,) -> (G, K)`` in every cell, (CELLS, 4, K)."""
    r = torch.linspace(START_A, cutoff_A, CELLS + 1, dtype=torch.float64)
    with torch.no_grad():
        y = functions(r)
    slope = torch.autograd.functional.jvp(functions, r, torch.ones_like(r))[1] / cells_per_A(
        cutoff_A
    )
    y0, y1, m0, m1 = y[:-1], y[1:], slope[:-1], slope[1:]
    return torch.stack((y0, m0, 3 * (y1 - y0) - 2 * m0 - m1, 2 * (y0 - y1) + m0 + m1), 1)
