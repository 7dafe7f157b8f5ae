"""OpenMM: its own BAOAB-RESPA, with both models as its forces."""

import time
from typing import Any

from ase import Atoms

from mts_driver.bench.ipi_runs import FRICTION_PER_PS, TEMPERATURE_K
from mts_driver.interfaces.openmm import LevelForces, add_forces, start_from_ase
from mts_driver.structures.files import read_structure
from mts_driver.units import KJ_MOL_EV

NM_A = 10.0


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
    """Time outer steps.

    Returns
    -------
    dict
        ``steps``, ``wall_s`` and ``start_forces`` (N, 3), eV/Å.

    Raises
    ------
    UserError
        If OpenMM is not installed, or has no ``PythonForce``.
    """
    context, _ = context_of(
        read_structure(structure),
        teacher=teacher,
        student=student,
        outer_fs=outer_fs,
        n=round(outer_fs / inner_fs),
        hydrogen_mass_Da=hydrogen_mass,
        device=device,
    )
    from openmm import unit

    per_nm = unit.kilojoule_per_mole / unit.nanometer
    state = context.getState(forces=True)
    forces = state.getForces(asNumpy=True).value_in_unit(per_nm) * KJ_MOL_EV / NM_A
    integrator = context.getIntegrator()
    integrator.step(1)
    start = time.perf_counter()
    integrator.step(steps)
    context.getState(positions=True)  # waits for the last step
    wall_s = time.perf_counter() - start
    return {"steps": steps, "wall_s": wall_s, "start_forces": forces.tolist()}


def context_of(
    atoms: Atoms,
    *,
    teacher: str,
    student: str,
    outer_fs: float,
    n: int,
    hydrogen_mass_Da: float,
    device: str,
    seed: int = 1,
) -> tuple[Any, LevelForces]:
    """Return a context at the start with thermal velocities, and its levels.

    The platform is the fastest there is; the centre of mass is kept still, as in other codes.
    """
    start = start_from_ase(atoms, hydrogen_mass_Da=hydrogen_mass_Da)
    import openmm
    from openmm import unit

    start.system.addForce(openmm.CMMotionRemover())
    forces = add_forces(
        start.system,
        start.topology,
        teacher=teacher,
        student=student,
        charge=start.charge,
        multiplicity=start.multiplicity,
        device=device,
    )
    integrator = openmm.MTSLangevinIntegrator(
        TEMPERATURE_K * unit.kelvin,
        FRICTION_PER_PS / unit.picosecond,
        outer_fs * unit.femtosecond,
        forces.groups(n),
    )
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(start.system, integrator)
    context.setPositions(start.positions)
    context.setVelocitiesToTemperature(TEMPERATURE_K * unit.kelvin, seed)
    return context, forces
