"""Stress of a configuration, and the pressure of a trajectory."""

import torch
from torch import Tensor

from integrators.reversible import Snapshots
from mts_driver.refinement.observables.arguments import Energy
from mts_driver.refinement.observables.estimators.frames import check_snapshots, frames, volume_A3
from mts_driver.refinement.observables.estimators.strain import (
    carries_gradients,
    check_graph,
    strained,
)
from mts_driver.units import EV_A3_GPA


def potential_stress(energy: Energy, positions: Tensor, cell: Tensor) -> Tensor:
    """Return σ = (1/V) dU/dε at zero strain, GPa, shape (3, 3); positive under tension.

    Gradients go to the parameters of the energy and to the positions.

    Parameters
    ----------
    energy : callable
        ``energy(positions, cell) -> (...)``, eV.
    positions : Tensor, shape (..., N, 3)
        Å; of several replicas the mean stress is returned.
    cell : Tensor, shape (3, 3)
        Å, periodic in three directions.

    Raises
    ------
    UserError
        If the cell has no volume, or the energy no graph to the cell.
    """
    volume = volume_A3(cell, "stress")
    keep = carries_gradients(energy, positions, cell)
    with torch.enable_grad():
        strain = torch.zeros(3, 3, dtype=positions.dtype, device=positions.device)
        unity = torch.eye(3).to(positions)
        moved, changed = strained(positions, cell, unity + strain.requires_grad_())
        total = energy(moved, changed).mean()
        check_graph(total, changed)
        (slope,) = torch.autograd.grad(total, strain, create_graph=keep)
    return EV_A3_GPA / volume * slope


def kinetic_pressure(snapshots: Snapshots) -> Tensor:
    """Return Σ m v⊗v / V of every snapshot, mean over replicas, GPa, shape (K, 3, 3).

    Raises
    ------
    UserError
        If the cell has no volume.
    """
    check_snapshots(snapshots)
    volume = volume_A3(snapshots.cell, "pressure")
    masses = snapshots.masses.where(snapshots.masses.isfinite(), 0.0)
    velocities = frames(snapshots.velocities)
    summed = torch.einsum("n,krna,krnb->kab", masses.to(velocities), velocities, velocities)
    return EV_A3_GPA / volume * summed / velocities.shape[1]


def pressure(energy: Energy, snapshots: Snapshots) -> Tensor:
    """Return a third of the trace of kinetic and virial pressure, GPa, shape (K,).

    Of every snapshot, mean over replicas. The kinetic part is that of the given velocities, whose
    bias at the end of a step `integrators.thermometer` describes.

    Raises
    ------
    UserError
        If the cell has no volume, or the energy no graph to the cell.
    """
    kinetic = kinetic_pressure(snapshots)
    static = torch.stack([potential_stress(energy, x, snapshots.cell) for x in snapshots.positions])
    return torch.einsum("kaa->k", kinetic - static) / 3.0
