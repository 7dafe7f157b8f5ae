"""What moves: atoms, or the centres of molecules, with or without the drift of the whole."""

from collections.abc import Callable

import torch
from torch import Tensor

from integrators.reversible import Snapshots
from mts_driver.errors import UserError
from mts_driver.refinement.observables.arguments import Indices
from mts_driver.refinement.observables.estimators.correlation import LagCurve, number_of_lags
from mts_driver.refinement.observables.estimators.frames import (
    check_snapshots,
    frames,
    spacing_fs,
)
from mts_driver.refinement.observables.selections import as_atoms, check_atoms


def moving(
    values: Tensor,
    snapshots: Snapshots,
    atoms: Indices,
    *,
    molecules: Indices | None,
    remove_drift: bool,
) -> Tensor:
    """Return the series of the particles that are followed, float64, shape (K, M, 3).

    Parameters
    ----------
    values : Tensor, shape (K, ..., N, 3)
        Positions or velocities of the snapshots; M counts particles of all replicas.
    snapshots : Snapshots
        Their masses weigh atoms, also where hydrogens have been made heavier.
    atoms : array of int
        Indices of the atoms.
    molecules : array of int, shape (N,), or None
        Number of each atom's molecule: the centres of mass of the chosen atoms of each one are
        followed instead of the atoms.
    remove_drift : bool
        Subtract the centre of mass of all N atoms.

    Raises
    ------
    UserError
        If atoms are not those of the snapshots, or a centre of mass is asked for where atoms are
        held in place.
    """
    check_snapshots(snapshots)
    chosen, count = as_atoms(atoms, "atoms"), snapshots.positions.shape[-2]
    check_atoms(chosen, count, "atoms")
    series, masses = frames(values).double(), snapshots.masses.double()
    chosen = chosen.to(series.device)
    if remove_drift:
        _check_masses(masses, "remove_drift")
        drift = (masses[:, None] * series).sum(-2, keepdim=True) / masses.sum()
        series = series - drift
    followed = series[:, :, chosen]
    if molecules is not None:
        numbers = torch.as_tensor(molecules).to(series.device)
        if numbers.shape != (count,):
            raise UserError(
                f"molecules have shape {tuple(numbers.shape)}, the snapshots {count} atoms: give "
                "one number an atom."
            )
        weights = masses[chosen]
        _check_masses(weights, "molecules")
        part = numbers[chosen].unique(return_inverse=True)[1]
        parts = int(part.max()) + 1
        share = weights / weights.new_zeros(parts).index_add(0, part, weights)[part]
        centres = followed.new_zeros(*followed.shape[:2], parts, 3)
        followed = centres.index_add(2, part, share[:, None] * followed)
    return followed.flatten(1, 2)


def lag_curve(
    of: Callable[[Tensor, int], Tensor],
    values: Tensor,
    snapshots: Snapshots,
    atoms: Indices,
    *,
    longest_lag_fs: float,
    molecules: Indices | None,
    remove_drift: bool,
) -> LagCurve:
    """Return ``of(series, lags)`` of what is `moving`, with the times that it is at."""
    series = moving(values, snapshots, atoms, molecules=molecules, remove_drift=remove_drift)
    spacing = spacing_fs(snapshots)
    lags = number_of_lags(len(series), spacing, longest_lag_fs)
    times = spacing * torch.arange(lags, dtype=series.dtype, device=series.device)
    return LagCurve(times, of(series, lags))


def _check_masses(masses: Tensor, name: str) -> None:
    if not bool(masses.isfinite().all()):
        raise UserError(
            f"{name} needs a centre of mass, but atoms of infinite mass are held in place: leave "
            "it out, or select atoms that move."
        )
