"""Potential energies, and the enthalpy of vaporisation that they give."""

from collections.abc import Sequence

import torch
from torch import Tensor

from integrators.reversible import Snapshots
from mts_driver.errors import UserError
from mts_driver.refinement.observables.arguments import Energy
from mts_driver.refinement.observables.estimators.frames import check_snapshots
from mts_driver.units import BOLTZMANN_EV_K, KJ_MOL_EV


def potential_energies(energy: Energy, snapshots: Snapshots) -> Tensor:
    """Return the energy of every snapshot and replica, eV, shape (K, ...).

    Gradients go to the parameters of the energy, where they enter it at given positions, and to
    the positions, and through them to the parameters as the dynamics feel them.

    Raises
    ------
    UserError
        If an energy is not finite.
    """
    check_snapshots(snapshots)
    found = torch.stack([energy(x, snapshots.cell) for x in snapshots.positions])
    if found.shape != snapshots.positions.shape[:-2]:
        raise UserError(
            f"energy returned shape {tuple(found.shape[1:])} for positions "
            f"{tuple(snapshots.positions.shape[1:])}: it must give one number a replica."
        )
    if not bool(found.detach().isfinite().all()):
        raise UserError("energy returned a number that is not finite: look at the snapshots.")
    return found


def energy_slopes(
    energy: Energy, positions: Tensor, cell: Tensor, parameters: Sequence[Tensor], weights: Tensor
) -> list[Tensor]:
    """Return the gradient by every parameter of a sum of energies, zero where none depends on it.

    Parameters
    ----------
    energy : callable
        With a graph to the parameters.
    positions : Tensor, shape (..., N, 3)
        Å.
    cell : Tensor, shape (3, 3)
        Å.
    parameters : sequence of Tensor
        Leaves.
    weights : Tensor, shape (...)
        Of each energy in the sum.
    """
    total = (weights * energy(positions, cell)).sum()
    parts: Sequence[Tensor | None] = [None] * len(parameters)
    if total.requires_grad:
        parts = torch.autograd.grad(total, parameters, allow_unused=True)
    return [
        torch.zeros_like(p) if part is None else part
        for part, p in zip(parts, parameters, strict=True)
    ]


def mean_potential_energy(energy: Energy, snapshots: Snapshots) -> Tensor:
    """Return the mean of `potential_energies` over snapshots and replicas, eV, shape ()."""
    return potential_energies(energy, snapshots).mean()


def enthalpy_of_vaporisation(
    liquid_eV: Tensor, gas_eV: Tensor, *, molecules: int, temperature_K: float
) -> Tensor:
    """Return ΔH = <U_gas> - <U_liquid>/molecules + RT, kJ/mol, shape ().

    RT is the work pV of an ideal gas. That of the liquid is neglected (2 J/mol for water at 1 bar),
    and so are the gas's deviation from ideality and quantum corrections of the vibrations.

    Parameters
    ----------
    liquid_eV : Tensor, any shape
        Potential energies of the liquid, as of `potential_energies`.
    gas_eV : Tensor, any shape
        Those of one isolated molecule.
    molecules : int
        Of the liquid.
    temperature_K : float
        The same for both.

    Raises
    ------
    UserError
        If there is no molecule or no energy, or the temperature is not positive.
    """
    if molecules < 1:
        raise UserError(f"molecules is {molecules}: give how many the liquid has, at least 1.")
    if not 0 < temperature_K < torch.inf:
        raise UserError(f"temperature_K is {temperature_K}: give a temperature above 0 K.")
    for name, values in (("liquid_eV", liquid_eV), ("gas_eV", gas_eV)):
        if not values.numel():
            raise UserError(f"{name} is empty: give the energies of at least one snapshot.")
    difference_eV = gas_eV.mean() - liquid_eV.mean() / molecules
    return (difference_eV + BOLTZMANN_EV_K * temperature_K) / KJ_MOL_EV
