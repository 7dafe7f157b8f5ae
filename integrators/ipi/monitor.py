"""What the i-PI integrator measures while it runs: clipped forces and temperatures at O."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ipi.utils.depend import dstrip
from ipi.utils.units import Constants, unit_to_internal

from integrators.degrees_of_freedom import of_atoms, of_groups
from integrators.ipi.friction import is_hydrogen


class Monitor:
    """Counters and averages of one system; the launcher reads them, nothing depends on them.

    They start at zero in every process: a restarted run counts from its restart.

    Attributes
    ----------
    groups : dict of str to bool array
        Atoms of "all", "H" and "heavy", or those of `watch`, that have degrees of freedom left.
    clip_events : int
        Per-atom slow forces clipped.
    max_force_difference_eV_A : float
        Largest norm of teacher - student on an atom (of any bead) so far, before clipping, eV/Å.
    latest_difference_eV_A : float
        The same after the last outer step.
    ou_steps : int
        Thermostat steps averaged over in ``temperatures_K``.
    latest_K : dict of str to float
        Temperatures after the last thermostat step, K.
    """

    def __init__(self, beads, nm, *, fixcom: bool, fixed_dof, lost_degrees=0.0) -> None:
        self._nm = nm
        self._scale = 1.0 / (
            beads.nbeads * Constants.kb * unit_to_internal("temperature", "kelvin", 1.0)
        )
        self._force_unit = unit_to_internal("force", "ev/ang", 1.0)
        hydrogen = is_hydrogen(beads)
        groups = {"all": np.ones_like(hydrogen), "H": hydrogen, "heavy": ~hydrogen}
        moves = np.ones(3 * beads.natoms, dtype=bool)
        moves[np.asarray(fixed_dof, dtype=int)] = False
        masses = np.array(dstrip(beads.m))
        each = of_atoms(masses, moves.reshape(-1, 3), beads=beads.nbeads, fixcom=fixcom)
        self._dof_of_atoms = each - lost_degrees
        self.watch(groups)

    def watch(self, groups: Mapping[str, np.ndarray]) -> None:
        """Read the temperatures of these groups of atoms, bool (N,), from the start again."""
        self._dof = of_groups(groups, self._dof_of_atoms)
        self.groups = {name: groups[name] for name in self._dof}
        self._masks = {name: np.repeat(mask, 3) for name, mask in self.groups.items()}
        self.reset()

    def reset(self) -> None:
        """Start all counters and averages again, e.g. after an equilibration."""
        self.clip_events = 0
        self.max_force_difference_eV_A = self.latest_difference_eV_A = 0.0
        self.ou_steps = 0
        self.latest_K: dict[str, float] = {}
        self._sums = dict.fromkeys(self._masks, 0.0)

    @property
    def temperatures_K(self) -> dict[str, float]:
        """Mean temperatures of the ``groups`` over all thermostat steps, K; {} before the first."""
        if self.ou_steps == 0:
            return {}
        return {name: total / self.ou_steps for name, total in self._sums.items()}

    def degrees_of_freedom(self, name: str) -> float:
        """Degrees of freedom of one of the ``groups``, of all beads."""
        return self._dof[name]

    def record_temperature(self) -> None:
        """Take a reading; called right after a thermostat step."""
        # normal modes carry the dynamical masses of path integral runs; 2K of one free mode is
        # nbeads kB T. One pass over the array, since this runs in every inner step
        twice_kinetic = (dstrip(self._nm.pnm) ** 2 / dstrip(self._nm.dynm3)).sum(axis=0)
        self.record({name: twice_kinetic[mask].sum() for name, mask in self._masks.items()})

    def record(self, twice_kinetic: Mapping[str, float]) -> None:
        """Take a reading that was made elsewhere: Σ m v² of each of the ``groups``."""
        for name, total in twice_kinetic.items():
            value = float(total) / self._dof[name] * self._scale
            self.latest_K[name] = value
            self._sums[name] += value
        self.ou_steps += 1

    def record_force_difference(self, norms: np.ndarray, n_clipped: int) -> None:
        """Take in the per-atom norms of one slow-force evaluation, internal units."""
        largest = float(norms.max()) / self._force_unit
        self.latest_difference_eV_A = largest
        # written so that a NaN is kept, where max() could drop it
        if not largest <= self.max_force_difference_eV_A:
            self.max_force_difference_eV_A = largest
        self.clip_events += n_clipped
