"""Kinetic temperature behind the thermostat, where it is unbiased.

With the thermostat inside the inner step the velocity at the end of a step is too cold (hydrogens
at 1 fs: 287 K when configurations are at 300 K) and hides real heating. The velocity right after O
is distributed correctly, so this is where temperatures are taken.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from integrators.bath import BOLTZMANN_EV_K
from integrators.splitting import OU, Operation
from integrators.state import MDState


class Thermometer:
    """An ``on_op`` observer that averages the temperature of groups of atoms over all OU steps.

    Parameters
    ----------
    groups : mapping of str to bool Tensor of shape (N,)
        E.g. ``{"H": numbers == 1, "heavy": numbers != 1}``; "all" is added.
    moves : bool Tensor of shape (N,), optional
        Atoms that are not held in place; the others do not count.
    lost_degrees : Tensor of shape (N,), optional
        Degrees of freedom that atoms have lost to distances that are held, see
        `integrators.constraints.Constraints.lost_degrees`. None by default: the engine leaves the
        centre of mass alone, so that every atom has three.

    Attributes
    ----------
    atoms : dict of str to int
        How many atoms of a group move; a group of which none does is left out.
    degrees : dict of str to float
        Degrees of freedom of a group.

    Raises
    ------
    ValueError
        If there is no group, or one has no atom.
    """

    def __init__(
        self,
        groups: Mapping[str, Tensor],
        moves: Tensor | None = None,
        lost_degrees: Tensor | None = None,
    ):
        if not groups:
            raise ValueError("give at least one group of atoms")
        for name, mask in groups.items():
            if not bool(mask.any()):
                raise ValueError(f"group {name!r} has no atom; leave it out")
        whole = {**groups, "all": torch.ones_like(next(iter(groups.values())))}
        if moves is not None:
            whole = {name: mask & moves for name, mask in whole.items()}
        self.atoms = {name: int(mask.sum()) for name, mask in whole.items() if bool(mask.any())}
        self._groups = {name: whole[name] for name in self.atoms}
        self.degrees = {name: 3.0 * count for name, count in self.atoms.items()}
        if lost_degrees is not None:
            for name, mask in self._groups.items():
                self.degrees[name] -= float(lost_degrees[mask].sum())
        self.reset()

    def reset(self) -> None:
        """Forget what was measured, e.g. at the end of an equilibration."""
        self._sums: dict[str, Tensor] = {}
        self.count = 0

    def __call__(self, k: int, op: Operation, state: MDState) -> None:
        """Take one reading if ``op`` is the thermostat."""
        if not isinstance(op, OU):
            return
        # m v² / kB: its sum over the degrees of freedom is the temperature
        masses = state.masses.where(state.masses.isfinite(), 0.0)
        per_atom = masses * state.velocities.square().sum(dim=-1) / BOLTZMANN_EV_K
        for name, mask in self._groups.items():
            self._add(name, per_atom[..., mask].sum(dim=-1).mean() / self.degrees[name])
        self.count += 1

    def _add(self, name: str, value: Tensor) -> None:
        # stays on the device: a reading must not wait for the kernels in flight
        self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value

    @property
    def temperatures_K(self) -> dict[str, float]:
        """Mean temperatures by group, K; empty before the first reading."""
        return {name: (total / self.count).item() for name, total in self._sums.items()}
