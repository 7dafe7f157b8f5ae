"""A potential as the compiled loop asks it: arrays, counted, timed and checked."""

import time

import numpy as np
import torch

from integrators.compiled_loop import Found
from integrators.device.model import DeviceModel
from integrators.state import Potential
from mts_driver.errors import UserError
from mts_driver.potentials.arrays import ArrayPotential
from mts_driver.potentials.backends import on_device

FURTHEST_A = 1e6
"""From the origin, of atoms that have not flown away."""
BLOWN_UP = (
    "the trajectory has blown up. Use a shorter outer_fs, relax the structure first (`mts prepare` "
    "does), or teach the student this system (`mts distill`)."
)


class TimedModel:
    """Evaluates one structure in Å and eV.

    Parameters
    ----------
    potential : Potential
        Bound to the atoms.
    name : str
        For messages.

    Attributes
    ----------
    potential : Potential
        As given.
    calls, seconds : int, float
        Since the last `reset`.
    """

    def __init__(self, potential: Potential, name: str) -> None:
        self.potential, self._name = potential, name
        self.reset()

    def reset(self) -> None:
        """Count from zero again."""
        self.calls, self.seconds = 0, 0.0

    def took(self, calls: int, seconds: float) -> None:
        """Count calls that were made elsewhere, on the device where the model is."""
        self.calls, self.seconds = self.calls + calls, self.seconds + seconds

    def __call__(self, positions: np.ndarray, cells: np.ndarray) -> Found:
        """Energies (1,), forces (1, N, 3) and virials (1, 3, 3) at positions (1, N, 3), Å.

        Raises
        ------
        UserError
            If positions or results are not finite.
        """
        if not np.abs(positions).max() < FURTHEST_A:
            raise UserError(f"atoms are not finite, or beyond {FURTHEST_A:g} Å: {BLOWN_UP}")
        numbers = getattr(self.potential, "numbers", None)
        if numbers is not None and len(numbers) != positions.shape[1]:
            raise UserError(
                f"{self._name} is bound to {len(numbers)} atoms, and there are "
                f"{positions.shape[1]}: it is a potential of other atoms."
            )
        start = time.perf_counter()
        energy, forces, virial = self._evaluate(positions.copy(), cells.copy())
        self.calls, self.seconds = self.calls + 1, self.seconds + time.perf_counter() - start
        if forces.shape != positions.shape:
            raise UserError(
                f"{self._name} returned forces of shape {forces.shape[1:]} for "
                f"{positions.shape[1]} atoms: it is a potential of other atoms."
            )
        if not np.isfinite(forces.sum()) or not np.isfinite(energy.sum()):
            raise UserError(f"{self._name} returned forces that are not finite: {BLOWN_UP}")
        return energy, forces, virial

    def _evaluate(self, positions: np.ndarray, cells: np.ndarray) -> Found:
        """Ask the potential; it may keep what it gets."""
        if isinstance(self.potential, ArrayPotential):
            energy, forces, virial = self.potential.evaluate(positions, cells)
        else:
            found = self.potential(torch.from_numpy(positions[0]), torch.from_numpy(cells[0]))
            energy, forces, virial = (part.detach().cpu().numpy()[None] for part in found)
        return energy.astype(float), forces.astype(float), virial.astype(float)


def models_on_device(
    teacher: TimedModel, student: TimedModel | None
) -> dict[str, DeviceModel] | None:
    """Return the models by level if they can take steps without the host."""
    if student is None:
        return on_device(teacher.potential, None)
    return on_device(student.potential, teacher.potential)
