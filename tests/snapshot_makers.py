"""Snapshots made of arrays, for tests of observables."""

import torch

from integrators.reversible import Snapshots


def snapshots(positions, *, velocities=None, cell=None, masses=None, every=1, timestep=1.0):
    """Of positions (K, ..., N, 3); at rest, isolated and of unit masses if nothing else is said."""
    positions = torch.as_tensor(positions)
    return Snapshots(
        steps=tuple(range(0, every * len(positions), every)),
        positions=positions,
        velocities=torch.zeros_like(positions) if velocities is None else velocities,
        cell=torch.zeros(3, 3, dtype=positions.dtype) if cell is None else torch.as_tensor(cell),
        masses=torch.ones(positions.shape[-2], dtype=positions.dtype) if masses is None else masses,
        timestep=timestep,
    )


def gas(frames, atoms, cell, seed=8):
    """Atoms without correlation, far outside the cell, as unwrapped positions are."""
    generator = torch.Generator().manual_seed(seed)
    shape = (frames, atoms, 3)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    x += torch.randint(-3, 3, shape, generator=generator)
    cell = torch.as_tensor(cell, dtype=torch.float64)
    return snapshots(x @ cell, cell=cell)
