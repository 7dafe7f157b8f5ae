"""Small systems whose gradients are known to rounding, by several ways."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.io import read
from torch import Tensor

from integrators.bath import Bath
from integrators.levels import Levels, SingleLevel, TwoLevel
from integrators.reversible import Snapshots
from integrators.splitting import Splitting, baoab, respa_baoab
from integrators.state import MDState
from mts_driver.errors import UserError
from mts_driver.potentials.classical.force_field import ForceField, ForceFieldSpec, Molecule
from mts_driver.refinement.problem import Problem
from mts_driver.simulation.thermal_state import thermal_state
from mts_driver.units import KJ_MOL_EV

SYSTEMS = ("harmonic", "Lennard-Jones", "water", "student")
TEMPERATURES_K = {"harmonic": 300.0, "Lennard-Jones": 95.0, "water": 300.0, "student": 300.0}
FRICTION_PER_PS = 1.0

ARGON = ForceFieldSpec(
    form="lennard-jones",
    cutoff_A=7.5,
    elements={"Ar": "Ar"},
    parameters={"Ar_epsilon_eV": 0.0103, "Ar_sigma_A": 3.4},
    molecules=(Molecule(("Ar",)),),
)
NITROGEN = ForceFieldSpec(
    form="lennard-jones",
    cutoff_A=2.0,
    elements={"N": "N"},
    parameters={"NN_k_eV_A2": 140.0, "NN_length_A": 1.1},
    molecules=(Molecule(("N", "N"), ((0, 1, "NN"),)),),
)
WATER = ForceFieldSpec(
    form="lennard-jones",
    cutoff_A=6.0,
    elements={"OW": "O", "HW": "H"},
    parameters={
        "OW_epsilon_eV": 0.650 * KJ_MOL_EV,
        "OW_sigma_A": 3.166,
        "HW_charge_e": 0.41,
        "OH_k_eV_A2": 4431.53 * KJ_MOL_EV,
        "OH_length_A": 1.012,
        "HOH_k_eV_rad2": 317.566 * KJ_MOL_EV,
        "HOH_angle_deg": 113.24,
    },
    molecules=(Molecule(("OW", "HW", "HW"), ((0, 1, "OH"), (0, 2, "OH")), ((1, 0, 2, "HOH"),)),),
)
"""SPC/Fw of Wu, Tepper and Voth, J. Chem. Phys. 2006, 124, 024503, with damped charges."""


@dataclass(frozen=True, eq=False)
class GradientSystem:
    """A system as a benchmark takes it.

    Attributes
    ----------
    start : MDState
        Where trajectories begin.
    levels, splitting, timestep_fs, bath
        As `integrators.engine.run` takes them.
    parameters : dict of str to Tensor
        What gradients are taken by.
    """

    start: MDState
    levels: Levels
    splitting: Splitting
    timestep_fs: float
    bath: Bath | None
    parameters: dict[str, Tensor]

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
    if name == "student":
        atoms = _water(structure)
        student, teacher = (_student(one, atoms, dtype) for one in ("water", "general"))
        levels, splitting, timestep_fs = TwoLevel(teacher, student, clip=None), respa_baoab(2), 2.0
        parameters = dict(student.parameters_by_name())
    else:
        spec, atoms, timestep_fs = {
            "harmonic": (NITROGEN, _nitrogen(), 1.0),
            "Lennard-Jones": (ARGON, argon(), 5.0),
            "water": (WATER, _water(structure) if name == "water" else argon(), 1.0),
        }[name]
        field = ForceField(spec, atoms.numbers.tolist()).to(getattr(torch, dtype))
        levels, splitting = SingleLevel(field), baoab()
        parameters = dict(field.values.items())
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


def argon(repeat: int = 3) -> Atoms:
    """Return a crystal of argon at the density of the liquid, a little disordered."""
    atoms = bulk("Ar", "fcc", a=5.72, cubic=True).repeat(repeat)
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


def _student(name: str, atoms: Atoms, dtype: str) -> Any:
    raise UserError(f"{name} {atoms} {dtype}")


def _single(state: MDState) -> MDState:
    from integrators.state import initial_state

    return initial_state(
        *(t.float() for t in (state.positions, state.velocities, state.masses, state.cell))
    )
