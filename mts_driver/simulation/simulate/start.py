"""From what a user gives to atoms, masses and velocities that a trajectory starts from."""

import warnings
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

from integrators.constraints import Distances
from mts_driver.simulation.simulate.random_numbers import RandomNumbers
from mts_driver.simulation.simulate.settings import SimulationSettings
from mts_driver.structures.files import fingerprint, read_atoms, read_structure
from mts_driver.structures.held_bonds import on_manifold
from mts_driver.structures.masses import PHYSICAL, repartitioned_masses, with_masses
from mts_driver.structures.tensors import cell_of, inertial_masses


@dataclass(frozen=True, eq=False)
class Start:
    """Where a trajectory starts.

    Attributes
    ----------
    atoms : ase.Atoms
        As `mts_driver.structures.files.read_structure` returns them, with velocities if kept.
    masses_Da : ndarray, shape (N,)
        Those of the run.
    masses : ndarray, shape (N,)
        The same in eV fs²/Å²; infinite for atoms that are held.
    cell : ndarray, shape (3, 3)
        Å, rows are lattice vectors; zeros for an isolated system.
    momenta : ndarray, shape (N, 3)
        eV fs/Å.
    random : RandomNumbers
        As it is after the velocities.
    distances : Distances, optional
        That are held.
    lost_degrees : ndarray, shape (N,), or 0
        Degrees of freedom that atoms have lost to them.
    """

    atoms: Atoms
    masses_Da: np.ndarray
    masses: np.ndarray
    cell: np.ndarray
    momenta: np.ndarray
    random: RandomNumbers
    distances: Distances | None = None
    lost_degrees: np.ndarray | float = 0.0

    @classmethod
    def of(cls, given: Atoms | str | Path, settings: SimulationSettings) -> "Start":
        """Read atoms or a file; velocities that they have are kept, others are drawn.

        With other masses every atom keeps its kinetic energy.

        Raises
        ------
        UserError
            If something that they say cannot be honoured.
        """
        tell = partial(warnings.warn, stacklevel=4)
        if isinstance(given, str | Path):
            atoms = read_structure(given, tell=tell, keep_velocities=True)
        else:
            atoms = read_atoms(given, tell=tell)
        masses_Da = repartitioned_masses(atoms, settings.hydrogen_mass_Da)
        masses = inertial_masses(atoms, masses_Da).numpy()
        random = RandomNumbers(settings.seed)
        moves = np.isfinite(masses)[:, None]
        if atoms.has("momenta"):
            velocities = with_masses(atoms.get_velocities(), atoms.get_masses(), masses_Da)
            velocities *= units.fs
        else:
            velocities = random.velocities(masses, settings.temperature_K)
        momenta = np.where(moves, velocities * np.where(moves, masses[:, None], 0.0), 0.0)
        return cls(atoms, masses_Da, masses, cell_of(atoms).numpy(), momenta, random)

    def held(self, distances: Distances) -> "Start":
        """Return the same start with distances that are held: on their manifold, and tangent to it.

        Raises
        ------
        UserError
            If the start is too far from them.
        """
        positions, constraints = on_manifold(self.atoms, self.masses_Da, distances)
        masses, x = torch.tensor(self.masses), torch.tensor(positions)
        moves = torch.isfinite(masses)[:, None]
        velocities = torch.tensor(self.momenta) / masses[:, None]
        tangent = constraints.tangent(x, velocities, masses)
        momenta = torch.where(moves, tangent * masses[:, None], 0.0).numpy()
        atoms = self.atoms.copy()
        atoms.set_positions(positions, apply_constraint=False)
        lost = constraints.lost_degrees(x, masses).numpy()
        return replace(self, atoms=atoms, momenta=momenta, distances=distances, lost_degrees=lost)

    def fingerprint(self) -> str:
        """Return a digest of all that the trajectory depends on."""
        kept = self.atoms.arrays.get("momenta", np.zeros(0))
        return sha256(fingerprint(self.atoms).encode() + kept.tobytes()).hexdigest()

    def frame(
        self, positions: np.ndarray, momenta: np.ndarray, *, energy_eV: float, forces: np.ndarray
    ) -> Atoms:
        """Return the atoms on their way, with velocities, and the teacher's energy and forces.

        Masses are those of the run, as in a start of `mts prepare`; the physical ones are kept
        beside where they differ, for the next reader.
        """
        atoms: Atoms = self.atoms.copy()
        atoms.set_positions(positions, apply_constraint=False)
        physical = atoms.get_masses()
        atoms.set_masses(self.masses_Da)
        if np.abs(physical - self.masses_Da).max() > 0:
            atoms.set_array(PHYSICAL, physical)
        moves = np.isfinite(self.masses)
        velocities = np.zeros_like(momenta)
        velocities[moves] = momenta[moves] / self.masses[moves, None]
        atoms.set_velocities(velocities / units.fs)
        atoms.calc = SinglePointCalculator(atoms, energy=energy_eV, forces=forces)
        return atoms
