"""ASE calculators: what a user could run without this project, and our potentials as such."""

from collections.abc import Sequence
from typing import Any

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from integrators.state import Potential
from mts_driver.potentials import load_potential
from mts_driver.potentials.ase import AsePotential
from mts_driver.structures.tensors import cell_of

PACKAGED = "ase:mts_driver.bench.calculators:packaged_so3lr"


def packaged_so3lr(device: str = "cpu") -> Calculator:
    """Return the ASE calculator of ``so3krates-torch`` in float32 with its own settings."""
    from so3krates_torch.calculator.so3 import SO3LRCalculator

    return SO3LRCalculator(default_dtype="float32", device=device)


def packaged_spec(device: str) -> str:
    """Return the specification of that calculator on a device."""
    return PACKAGED if device == "cpu" else f"{PACKAGED}?device={device}"


class PotentialCalculator(Calculator):
    """A potential of this project as an ASE calculator: energy, forces, and stress in a cell.

    Parameters
    ----------
    potential : Potential
        Bound to the atoms that the calculator will be asked about.
    """

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012 (ASE's own type)

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Evaluate the potential; eV, eV/Å and eV/Å³."""
        super().calculate(atoms, properties, system_changes)
        system: Atoms = self.atoms  # type: ignore[assignment]
        found = self.potential(torch.from_numpy(system.positions), cell_of(system))
        forces = found.forces.detach().cpu().double().numpy()
        self.results = {"energy": float(found.energy), "forces": forces}
        if system.cell.rank == 3:
            stress = -found.virial.detach().cpu().double().numpy() / system.get_volume()
            self.results["stress"] = stress.flat[[0, 4, 8, 5, 2, 1]]


def calculator_of(spec: str, numbers: Sequence[int], device: str) -> Any:
    """Return the calculator of any specification: the very one of ``ase:``, otherwise wrapped."""
    potential = load_potential(spec, numbers, device=device)
    if isinstance(potential, AsePotential):
        return potential.calculator
    return PotentialCalculator(potential)
