"""Lengths of given bonds: their distribution, mean and variance."""

from typing import NamedTuple

import torch
from torch import Tensor

from integrators.reversible import Snapshots
from mts_driver.errors import UserError
from mts_driver.refinement.observables.arguments import Indices, Numbers
from mts_driver.refinement.observables.estimators.frames import check_snapshots, longest_distance_A
from mts_driver.refinement.observables.estimators.histogram import as_points, smooth_histogram
from mts_driver.refinement.observables.selections import check_atoms


class Moments(NamedTuple):
    """Of a distribution of lengths.

    Attributes
    ----------
    mean_A, variance_A2 : Tensor, shape ()
        Over all bonds, snapshots and replicas; the variance is that of this set itself.
    """

    mean_A: Tensor
    variance_A2: Tensor


def bond_lengths(snapshots: Snapshots, bonds: Indices) -> Tensor:
    """Return lengths, nearest images, shape (K, ..., M), Å.

    Parameters
    ----------
    bonds : array of int, shape (M, 2)
        Indices of atoms, such as those of
        `mts_driver.structures.masses.hydrogen_bonds_to_heavy`.

    Raises
    ------
    UserError
        If there is no bond, or one of an atom to itself or to none, or one is longer than half the
        smallest width of the cell.
    """
    check_snapshots(snapshots)
    pairs = torch.as_tensor(bonds)
    if pairs.ndim != 2 or pairs.shape[-1] != 2 or not len(pairs) or pairs.is_floating_point():
        raise UserError(
            f"bonds have shape {tuple(pairs.shape)} and type {pairs.dtype}: give the indices of "
            "two atoms each, shape (M, 2), for at least one bond."
        )
    check_atoms(pairs, snapshots.positions.shape[-2], "bonds")
    if int(pairs.min()) < 0 or bool((pairs[:, 0] == pairs[:, 1]).any()):
        raise UserError("bonds join an atom to itself or to a negative index: give two atoms each.")
    x = snapshots.positions
    i, j = pairs.to(x.device).T
    apart, longest = x[..., j, :] - x[..., i, :], longest_distance_A(snapshots.cell)
    if longest < torch.inf:
        cell = snapshots.cell.to(x)
        apart = apart - torch.linalg.solve(cell, apart.detach(), left=False).round() @ cell
    lengths: Tensor = apart.norm(dim=-1)
    # up to there rounding gives the nearest image in any cell
    if float(lengths.detach().max()) > longest:
        raise UserError(
            f"bonds: one is {float(lengths.detach().max()):.4g} Å long, and nearest images are "
            f"unique only up to {longest:.4g} Å: give pairs of bonded atoms."
        )
    return lengths


def bond_length_moments(snapshots: Snapshots, bonds: Indices) -> Moments:
    """Return mean and variance of the lengths of `bond_lengths`."""
    lengths = bond_lengths(snapshots, bonds)
    return Moments(lengths.mean(), lengths.var(correction=0))


def bond_length_distribution(
    snapshots: Snapshots,
    bonds: Indices,
    *,
    r_A: Numbers,
    width_A: float,
) -> Tensor:
    """Return the probability density of the lengths, by a smooth histogram, shape (B,), 1/Å.

    Parameters
    ----------
    bonds : array of int, shape (M, 2)
        As in `bond_lengths`.
    r_A : array of float, shape (B,)
        Where it is estimated, ascending.
    width_A : float
        Standard deviation of the kernel, a Gaussian cut at 4 widths; it adds its square to the
        variance.

    Raises
    ------
    UserError
        As `bond_lengths`, and if r_A does not ascend or the width is not positive.
    """
    points = as_points(r_A, width_A, "r_A", "width_A")
    lengths = bond_lengths(snapshots, bonds).flatten()
    weights = torch.full_like(lengths, 1.0 / len(lengths), requires_grad=False)
    rows = torch.zeros(len(lengths), dtype=torch.int64, device=lengths.device)
    return smooth_histogram(lengths, weights, rows, points, width=width_A, n_rows=1)[0]
