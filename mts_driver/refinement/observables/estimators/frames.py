"""Snapshots as arrays of frames, checked before an observable is taken of them."""

from itertools import pairwise

import torch
from torch import Tensor

from integrators.reversible import Snapshots
from mts_driver.errors import UserError
from mts_driver.structures.neighbors import heights


def frames(values: Tensor) -> Tensor:
    """Return (K, ..., N, 3) as (K, R, N, 3): snapshots, then all replicas."""
    return values.reshape(len(values), -1, *values.shape[-2:])


def check_snapshots(snapshots: Snapshots) -> None:
    """Raise a `UserError` if there are none, or their arrays do not belong together."""
    count, shape = len(snapshots.steps), snapshots.positions.shape
    if not count:
        raise UserError("snapshots are empty: take at least one of the trajectory.")
    if len(shape) < 3 or shape[0] != count or shape[-1] != 3:
        raise UserError(
            f"snapshots.positions have shape {tuple(shape)}, for {count} steps: need "
            f"({count}, ..., N, 3)."
        )
    if snapshots.velocities.shape != shape or snapshots.masses.shape != shape[-2:-1]:
        raise UserError(
            f"snapshots have positions {tuple(shape)}, velocities "
            f"{tuple(snapshots.velocities.shape)} and masses {tuple(snapshots.masses.shape)}: "
            "they must be of the same atoms."
        )
    if snapshots.cell.shape != (3, 3):
        raise UserError(
            f"snapshots.cell has shape {tuple(snapshots.cell.shape)}: need (3, 3), the same cell "
            "in all snapshots and replicas."
        )


def spacing_fs(snapshots: Snapshots) -> float:
    """Return the time between two snapshots.

    Raises
    ------
    UserError
        If there are fewer than two, or they are not evenly spaced.
    """
    steps = snapshots.steps
    apart = {later - earlier for earlier, later in pairwise(steps)}
    if len(apart) != 1 or min(apart) <= 0:
        found = f"are {sorted(apart)} steps apart" if apart else f"number {len(steps)}"
        raise UserError(
            f"snapshots {found}: a correlation in time needs at least two, at even distances; take "
            "one every so many outer steps."
        )
    return apart.pop() * snapshots.timestep


def longest_distance_A(cell: Tensor) -> float:
    """Largest distance at which a pair has one image at most; infinite for an isolated system.

    Raises
    ------
    UserError
        If the cell is periodic in one or two directions only.
    """
    matrix = cell.detach().cpu().double()
    if not bool(matrix.any()):
        return torch.inf
    check_volume(cell, "minimum images")
    return 0.5 * float(heights(matrix.numpy()).min())


def volume_A3(cell: Tensor, purpose: str) -> Tensor:
    """Return the volume of a cell (3, 3), which carries its gradients.

    Raises
    ------
    UserError
        If it has none; ``purpose`` says what it is needed for.
    """
    check_volume(cell, purpose)
    volume: Tensor = torch.linalg.det(cell).abs()
    return volume


def check_volume(cell: Tensor, purpose: str) -> None:
    """Raise a `UserError` if a cell has no volume; ``purpose`` says what needs one."""
    lengths = cell.detach().norm(dim=1)
    if not float(torch.linalg.det(cell.detach()).abs()) > 1e-6 * float(lengths.prod()):
        raise UserError(
            f"cell {cell.detach().tolist()} has no volume, which is needed for {purpose}: give a "
            "cell that is periodic in three directions."
        )
