"""Where a benchmark starts whose bonds to hydrogen are held, and at what lengths."""

import tempfile
from functools import cached_property
from pathlib import Path

from ase import Atoms

from integrators.constraints import Distances
from mts_driver.bench.fresh import call_fresh
from mts_driver.bench.ipi_runs import TEMPERATURE_K
from mts_driver.bench.settings import BenchSettings
from mts_driver.potentials import load_potential
from mts_driver.simulation.bond_lengths import average_lengths
from mts_driver.structures.files import read_structure
from mts_driver.structures.held_bonds import distances, held_pairs, on_manifold
from mts_driver.structures.masses import repartitioned_masses


class HeldStart:
    """The structure of a benchmark with bonds at their average lengths, as `mts prepare` makes it.

    The averages are of a picosecond of the student. They are made when something is first asked
    for, and once, so that all variants hold the same.

    Parameters
    ----------
    settings : BenchSettings
        Its structure and its student.
    hydrogen_mass_Da : float
        Of the runs.
    rigid_water : bool
        Whether the distance of both hydrogens of a water molecule is held, too.
    """

    def __init__(
        self, settings: BenchSettings, *, hydrogen_mass_Da: float, rigid_water: bool = False
    ) -> None:
        self._settings, self._hydrogen_mass_Da = settings, hydrogen_mass_Da
        self._rigid_water = rigid_water

    @cached_property
    def distances(self) -> Distances:
        """What is held, Å.

        Raises
        ------
        UserError
            If there is no bond to a hydrogen or no water, or the student loses the atoms.
        """
        settings = self._settings
        pairs = held_pairs(settings.structure, rigid_water=self._rigid_water)
        with tempfile.TemporaryDirectory(prefix="mts-bench-") as folder:
            structure = Path(folder) / "start.extxyz"
            settings.structure.write(structure)
            lengths_A = call_fresh(
                lengths_of,
                threads=settings.threads,
                structure=str(structure),
                model=settings.student,
                hydrogen_mass_Da=self._hydrogen_mass_Da,
                rigid_water=self._rigid_water,
                device=settings.device,
            )
        return distances(pairs, lengths_A)

    @cached_property
    def atoms(self) -> Atoms:
        """The structure, with these distances."""
        atoms: Atoms = self._settings.structure.copy()
        masses_Da = repartitioned_masses(atoms, self._hydrogen_mass_Da)
        atoms.positions, _ = on_manifold(atoms, masses_Da, self.distances)
        return atoms


def lengths_of(
    *, structure: str, model: str, hydrogen_mass_Da: float, rigid_water: bool, device: str
) -> dict[str, float]:
    """Return the average lengths of what is held by kind, Å, in this process."""
    atoms = read_structure(structure)
    return average_lengths(
        atoms,
        repartitioned_masses(atoms, hydrogen_mass_Da),
        load_potential(model, atoms.numbers.tolist(), device=device),
        held_pairs(atoms, rigid_water=rigid_water),
        temperature_K=TEMPERATURE_K,
        seed=1,
    )
