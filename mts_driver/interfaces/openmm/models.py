"""Levels as OpenMM asks for them: a group at a time, and often twice at the same positions."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from integrators.levels import SingleLevel, TwoLevel
from integrators.state import Evaluation, MDState, Potential, initial_state
from mts_driver.errors import UserError

BLOWN_UP = (
    "the trajectory has blown up. Use a shorter time step, minimise the structure first, or teach "
    "the student this system (`mts distill`)."
)


class Checked:
    """A potential whose results are finite, of the right shape, and in float64 on the CPU.

    Parameters
    ----------
    potential : Potential
        Bound to the atoms.
    name : str
        For messages.
    """

    def __init__(self, potential: Potential, name: str) -> None:
        self._potential, self._name = potential, name

    def __call__(self, positions: Tensor, cell: Tensor) -> Evaluation:
        """Energy (), eV, forces (N, 3), eV/Å, and virial (3, 3), eV.

        Raises
        ------
        UserError
            If positions or results are not finite, or the results are of other atoms.
        """
        if not bool(positions.isfinite().all()):
            raise UserError(f"positions are not finite: {BLOWN_UP}")
        found = self._potential(positions.clone(), cell.clone())
        energy, forces, virial = (part.detach().cpu().double() for part in found)
        if forces.shape != positions.shape:
            raise UserError(
                f"{self._name} returned forces of shape {tuple(forces.shape)} for "
                f"{len(positions)} atoms: it is a potential of other atoms."
            )
        if not bool(forces.isfinite().all() and energy.isfinite().all()):
            raise UserError(f"{self._name} returned forces that are not finite: {BLOWN_UP}")
        return Evaluation(energy, forces, virial)


class LevelsAtPositions:
    """Levels that remember what they found at the last positions, in the last cell.

    OpenMM asks for a group's forces again when it turns to another group or writes energies; a
    model is asked once.

    Parameters
    ----------
    levels : SingleLevel or TwoLevel
        Of `Checked` potentials.
    atoms : int
        How many.
    """

    def __init__(self, levels: SingleLevel | TwoLevel, atoms: int) -> None:
        self._levels = levels
        nowhere = torch.zeros(atoms, 3, dtype=torch.float64)
        self._state: MDState = initial_state(nowhere, nowhere, torch.ones(atoms))

    def evaluate(self, level: str, positions: Tensor, cell: Tensor) -> Evaluation:
        """Evaluate a level at positions (N, 3) in a cell (3, 3; zeros: isolated), Å."""
        state = self._state
        if not (torch.equal(state.positions, positions) and torch.equal(state.cell, cell)):
            state = replace(state, positions=positions, cell=cell, evaluations={})
        self._state = self._levels.evaluate(state, level)
        return self._state.evaluations[level]

    @property
    def clip_events(self) -> int:
        """Slow forces of atoms that were scaled back so far."""
        return int(self._state.clip_events)

    @property
    def max_force_difference_eV_A(self) -> float:
        """Largest slow force on an atom so far, before that, eV/Å."""
        return float(self._state.max_force_difference)
