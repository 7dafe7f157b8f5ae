"""OpenMM: its own BAOAB-RESPA, with both models as Python functions."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ase import units

from mts_driver.bench.ipi_runs import FRICTION_PER_PS, TEMPERATURE_K
from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.structures.files import read_structure
from mts_driver.structures.masses import repartitioned_masses
from mts_driver.structures.tensors import cell_of

KJ_MOL = units.kJ / units.mol
NM_A = 10.0
SLOW, FAST = 0, 1
Compute = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""Energy, eV, and forces (N, 3), eV/Å, of positions (N, 3), Å."""


def run_openmm(
    *,
    structure: str,
    teacher: str,
    student: str,
    outer_fs: float,
    inner_fs: float,
    hydrogen_mass: float,
    device: str,
    steps: int,
) -> dict[str, Any]:
    """Time outer steps; teacher − student is force group 0, the student group 1.

    Returns
    -------
    dict
        ``steps``, ``wall_s`` and ``start_forces`` (N, 3), eV/Å.

    Raises
    ------
    UserError
        If OpenMM is not installed, or has no ``PythonForce``.
    """
    try:
        import openmm
        from openmm import PythonForce, unit
    except ImportError as error:
        raise UserError(f"needs OpenMM 8.4 or newer ({error}): pip install openmm") from error
    atoms = read_structure(structure)
    numbers, cell = atoms.numbers.tolist(), cell_of(atoms)
    slow_model, fast_model = (
        _remembering(load_potential(spec, numbers, device=device), cell)
        for spec in (teacher, student)
    )

    def difference(x: np.ndarray) -> tuple[float, np.ndarray]:
        (one, forces), (other, less) = slow_model(x), fast_model(x)
        return one - other, forces - less

    system = openmm.System()
    for mass in repartitioned_masses(atoms, hydrogen_mass):
        system.addParticle(float(mass))
    for group, compute in ((SLOW, difference), (FAST, fast_model)):
        force = PythonForce(_in_openmm_units(compute, unit.nanometer))
        force.setForceGroup(group)
        system.addForce(force)
    integrator = openmm.MTSLangevinIntegrator(
        TEMPERATURE_K * unit.kelvin,
        FRICTION_PER_PS / unit.picosecond,
        outer_fs * unit.femtosecond,
        [(SLOW, 1), (FAST, round(outer_fs / inner_fs))],
    )
    context = openmm.Context(system, integrator)  # on the fastest platform there is
    context.setPositions(atoms.positions / NM_A)
    context.setVelocitiesToTemperature(TEMPERATURE_K * unit.kelvin, 1)
    state = context.getState(getForces=True)
    per_nm = unit.kilojoule_per_mole / unit.nanometer
    forces = state.getForces(asNumpy=True).value_in_unit(per_nm) * KJ_MOL / NM_A
    integrator.step(1)
    start = time.perf_counter()
    integrator.step(steps)
    context.getState(getPositions=True)  # waits for the last step
    wall_s = time.perf_counter() - start
    return {"steps": steps, "wall_s": wall_s, "start_forces": forces.tolist()}


def _remembering(potential: Any, cell: torch.Tensor) -> Compute:
    """Return the model with its last result kept.

    OpenMM asks for the forces of a group again when it turns to the next group, at the same
    positions; the engines beside it keep them too.
    """
    last: list[Any] = [None, None]

    def compute(x: np.ndarray) -> tuple[float, np.ndarray]:
        if last[0] is None or not np.array_equal(last[0], x):
            found = potential(torch.from_numpy(x), cell)
            forces = found.forces.detach().cpu().double().numpy()
            last[:] = [x.copy(), (float(found.energy), forces)]
        return last[1]

    return compute


def _in_openmm_units(compute: Compute, nanometer: Any) -> Callable[[Any], Any]:
    def function(state: Any) -> tuple[float, np.ndarray]:
        x = state.getPositions(asNumpy=True).value_in_unit(nanometer)
        energy, forces = compute(NM_A * np.array(x))
        return energy / KJ_MOL, forces * NM_A / KJ_MOL

    return function
