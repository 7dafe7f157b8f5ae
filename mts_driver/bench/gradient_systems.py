"""Small systems whose gradients are known to rounding, by several ways."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.io import read
from torch import Tensor

from integrators.bath import Bath
from integrators.levels import Levels, SingleLevel, TwoLevel
from integrators.reversible import Snapshots
from integrators.splitting import Splitting, baoab, respa_baoab
from integrators.state import MDState, initial_state
from mts_driver.errors import UserError
from mts_driver.potentials.classical.force_field import AtomType, ForceField, Molecule
from mts_driver.potentials.classical.model import ClassicalPotential
from mts_driver.potentials.classical.molecular import MolecularForceField
from mts_driver.potentials.classical.pair_models import PairModel
from mts_driver.potentials.classical.water import flexible_water
from mts_driver.potentials.student.file import find_student, read_student
from mts_driver.potentials.student.trainable import TrainableStudent
from mts_driver.refinement.problem import Problem
from mts_driver.simulation.thermal_state import thermal_state

SYSTEMS = ("harmonic", "Lennard-Jones", "water", "student")
TEMPERATURES_K = {"harmonic": 300.0, "Lennard-Jones": 160.0, "water": 300.0, "student": 300.0}
FRICTION_PER_PS = 1.0

ARGON = {"epsilon_eV": 0.0103, "sigma_A": 3.4}
ARGON_CUTOFF_A = 7.5
NITROGEN = ForceField(
    types={"N": AtomType("N")},
    molecules={"nitrogen": Molecule(("N", "N"), ((0, 1),))},
    form="lennard-jones",
    van_der_waals={},
    bonds={"N-N": {"bond_k_eV_A2": 140.0, "bond_length_A": 1.1}},
    cutoff_A=2.0,
    switch_A=1.8,
)
"""Harmonic bonds, and nothing between molecules."""


@dataclass(frozen=True, eq=False)
class GradientSystem:
    """A system as a benchmark takes it.

    Attributes
    ----------
    start : MDState
        Where trajectories begin.
    levels, splitting, timestep_fs, bath
        As `integrators.engine.run` takes them.
    parameters : mapping of str to Tensor
        What gradients are taken by.
    """

    start: MDState
    levels: Levels
    splitting: Splitting
    timestep_fs: float
    bath: Bath | None
    parameters: Mapping[str, Tensor]

    def problem(self, steps: int, snapshots: tuple[int, ...], loss: Any = None) -> Problem:
        """Return it with a loss, that of `spread` where none is given."""
        return Problem(
            levels=self.levels,
            splitting=self.splitting,
            parameters=self.parameters,
            loss=loss or spread,
            steps=steps,
            snapshots=snapshots,
            timestep_fs=self.timestep_fs,
            bath=self.bath,
        )


def spread(seen: Snapshots) -> Tensor:
    """Of positions and velocities, with numbers of the order of one."""
    x, v = seen.positions, seen.velocities
    apart = (x[..., 1:, :] - x[..., :-1, :]).square().sum(-1)
    return 1e-2 * apart.mean() + 1e3 * v.square().mean()


def gradient_system(
    name: str, *, ensemble: str, structure: str, dtype: str = "float64"
) -> GradientSystem:
    """Return one of `SYSTEMS`.

    Parameters
    ----------
    name : str
        Which.
    ensemble : str
        NVE or NVT.
    structure : str
        A file of water, for those that are made of it.
    dtype : str
        Of positions and parameters.
    """
    temperature_K = TEMPERATURES_K[name]
    bath = None
    if ensemble == "NVT":
        bath = Bath.from_temperature(temperature_K=temperature_K, friction_per_ps=FRICTION_PER_PS)
    levels: Levels
    parameters: Mapping[str, Tensor]
    if name == "student":
        atoms = _water(structure)
        student, teacher = (_student(one, atoms, dtype) for one in ("water", "general"))
        levels, splitting, timestep_fs = TwoLevel(teacher, student, clip=None), respa_baoab(2), 2.0
        parameters = {n: p for n, p in student.model.named_parameters() if p.requires_grad}
    else:
        atoms, timestep_fs = _atoms(name, structure), 5.0 if name == "Lennard-Jones" else 1.0
        model = _model(name, atoms)
        levels, splitting = SingleLevel(model), baoab()
        parameters = dict(model.named_parameters())
    start = thermal_state(atoms, atoms.get_masses(), temperature_K=temperature_K, seed=3)
    if dtype == "float32":
        start = _single(start)
    return GradientSystem(
        start,
        levels,
        splitting if bath else splitting.without_ou(),
        timestep_fs,
        bath,
        parameters,
    )


def _atoms(name: str, structure: str) -> Atoms:
    if name == "Lennard-Jones":
        return argon()
    return _nitrogen() if name == "harmonic" else _water(structure)


def _model(name: str, atoms: Atoms) -> ClassicalPotential:
    if name == "Lennard-Jones":
        return liquid(atoms)
    tables = NITROGEN if name == "harmonic" else flexible_water(cutoff_A=6.0)
    return MolecularForceField(tables, atoms.numbers.tolist())


def liquid(atoms: Atoms, off: float = 0.0) -> PairModel:
    """Return argon, with parameters that are a share ``off`` wrong."""
    values = {name: (1.0 + off) * value for name, value in ARGON.items()}
    return PairModel("lennard-jones", atoms.numbers.tolist(), values, cutoff_A=ARGON_CUTOFF_A)


def argon(repeat: int = 3) -> Atoms:
    """Return a crystal of argon, a little disordered, so thin that it becomes a fluid at once."""
    atoms = bulk("Ar", "fcc", a=7.3, cubic=True).repeat(repeat)
    atoms.rattle(0.1, seed=1)
    return atoms


def _nitrogen() -> Atoms:
    one = Atoms("N2", [[0, 0, 0], [0, 0, 1.15]])
    many = Atoms(cell=[20.0] * 3, pbc=True)
    for k in range(27):
        copy = one.copy()
        copy.translate(6.0 * np.array(np.unravel_index(k, (3, 3, 3))))
        many += copy
    return many


def _water(structure: str) -> Atoms:
    found = read(structure)
    assert isinstance(found, Atoms)
    if found.get_chemical_symbols() != ["O", "H", "H"] * (len(found) // 3):
        raise UserError(
            f"--structure {structure}: gradients are measured on water, O H H a molecule."
        )
    return found


def _student(name: str, atoms: Atoms, dtype: str) -> TrainableStudent:
    model, _ = read_student(find_student(name))
    return TrainableStudent(model, atoms.numbers.tolist(), dtype=dtype, name=name)


def _single(state: MDState) -> MDState:
    return initial_state(
        *(t.float() for t in (state.positions, state.velocities, state.masses, state.cell))
    )
