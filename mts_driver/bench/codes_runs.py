"""One trajectory by each code that needs no i-PI; each is called in a process of its own.

All write what `Seen` reads and return ``steps``, ``wall_s``, ``temperatures_K`` (at the thermostat
step, where the code tells), ``clip_events`` and ``max_force_difference_eV_A``.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units

from mts_driver.analysis.rdf import choose_atoms
from mts_driver.bench.codes_averages import Seen
from mts_driver.bench.ipi_runs import FRICTION_PER_PS, TEMPERATURE_K
from mts_driver.structures.files import read_structure
from mts_driver.units import KJ_MOL_EV


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What every code is asked for.

    Attributes
    ----------
    structure, output : str
        Files: of the start, and for what was seen.
    teacher, student, device : str
        The models, as `mts_driver.load_potential` takes them.
    outer_fs : float
        Outer time step, fs.
    n : int
        Inner steps of one.
    hydrogen_mass_Da : float
        Da.
    seed, steps, stride : int
        Of the noise; outer steps, and how many lie between two frames.
    """

    structure: str
    output: str
    teacher: str
    student: str
    device: str
    outer_fs: float
    n: int
    hydrogen_mass_Da: float
    seed: int
    steps: int
    stride: int


class _Frames:
    """Collects frames on the way."""

    def __init__(self, atoms: Atoms) -> None:
        _, self._mask = choose_atoms(np.array(atoms.get_chemical_symbols()))
        self._rows: list[tuple[float, float, np.ndarray]] = []

    def add(self, potential_eV: float, kinetic_eV: float, positions_A: np.ndarray) -> None:
        self._rows.append((potential_eV, kinetic_eV, positions_A[self._mask].copy()))

    def write(self, path: str) -> None:
        Seen(*(np.array(column) for column in zip(*self._rows, strict=True))).write(path)


def run_ase(**asked: Any) -> dict[str, Any]:
    """ASE's dynamics with `mts_driver.interfaces.ase.RespaBAOAB`."""
    from mts_driver.bench.calculators import calculator_of
    from mts_driver.interfaces.ase import RespaBAOAB

    a = Asked(**asked)
    atoms = read_structure(Path(a.structure))
    atoms.calc = calculator_of(a.teacher, atoms.numbers.tolist(), a.device)
    rng = np.random.default_rng(a.seed)
    spread = np.sqrt(atoms.get_masses() * units.kB * TEMPERATURE_K)
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * spread[:, None])
    dynamics = RespaBAOAB(
        atoms,
        a.outer_fs * units.fs,
        inner_steps=a.n,
        student=a.student,
        temperature_K=TEMPERATURE_K,
        friction=FRICTION_PER_PS / (1000.0 * units.fs),
        hydrogen_mass_Da=a.hydrogen_mass_Da,
        rng=rng,
        device=a.device,
    )
    dynamics.run(1)
    frames = _Frames(atoms)

    def look() -> None:
        frames.add(atoms.get_potential_energy(), atoms.get_kinetic_energy(), atoms.positions)

    start = time.perf_counter()
    for _ in range(a.steps // a.stride):
        dynamics.run(a.stride)
        look()
    dynamics.run(a.steps % a.stride)
    wall_s = time.perf_counter() - start
    frames.write(a.output)
    return {
        "steps": a.steps,
        "wall_s": wall_s,
        "temperatures_K": dynamics.temperatures_K,
        "clip_events": dynamics.clip_events,
        "max_force_difference_eV_A": dynamics.max_force_difference_eV_A,
    }


def run_openmm(**asked: Any) -> dict[str, Any]:
    """OpenMM's ``MTSLangevinIntegrator`` with `mts_driver.interfaces.openmm.add_forces`."""
    from mts_driver.bench.peer_openmm import NM_A, context_of

    a = Asked(**asked)
    atoms = read_structure(Path(a.structure))
    context, forces = context_of(
        atoms,
        teacher=a.teacher,
        student=a.student,
        outer_fs=a.outer_fs,
        n=a.n,
        hydrogen_mass_Da=a.hydrogen_mass_Da,
        device=a.device,
        seed=a.seed,
    )
    integrator = context.getIntegrator()
    integrator.step(1)
    frames = _Frames(atoms)
    start = time.perf_counter()
    for _ in range(a.steps // a.stride):
        integrator.step(a.stride)
        state = context.getState(energy=True, positions=True)
        potential, kinetic = (
            KJ_MOL_EV * energy._value
            for energy in (state.getPotentialEnergy(), state.getKineticEnergy())
        )
        frames.add(potential, kinetic, NM_A * state.getPositions(asNumpy=True)._value)
    integrator.step(a.steps % a.stride)
    context.getState(positions=True)  # waits for the last step
    wall_s = time.perf_counter() - start
    frames.write(a.output)
    return {
        "steps": a.steps,
        "wall_s": wall_s,
        "temperatures_K": {},
        "clip_events": forces.clip_events,
        "max_force_difference_eV_A": forces.max_force_difference_eV_A,
    }


def run_simulate(**asked: Any) -> dict[str, Any]:
    """`mts_driver.simulate`."""
    from ase.io import iread

    from mts_driver.simulation.simulate.run import simulate

    a = Asked(**asked)
    atoms = read_structure(Path(a.structure))
    frames = _Frames(atoms)
    with tempfile.TemporaryDirectory(prefix="mts-bench-") as folder:
        file = Path(folder) / "trajectory.extxyz"
        found = simulate(
            atoms,
            teacher=a.teacher,
            student=a.student,
            outer_fs=a.outer_fs,
            inner_fs=a.outer_fs / a.n,
            temperature_K=TEMPERATURE_K,
            friction_per_ps=FRICTION_PER_PS,
            hydrogen_mass_Da=a.hydrogen_mass_Da,
            steps=a.steps,
            stride=a.stride,
            seed=a.seed,
            trajectory=file,
            progress=False,
            device=a.device,
        )
        values = found.properties
        energies = zip(values["potential_energy_eV"], values["kinetic_energy_eV"], strict=True)
        for k, (frame, both) in enumerate(zip(iread(file, ":"), energies, strict=True)):
            if k:
                frames.add(*both, frame.positions)
    frames.write(a.output)
    return {
        "steps": a.steps,
        "wall_s": found.timings.wall_s,
        "temperatures_K": found.temperatures_K,
        "clip_events": found.holes.clip_events,
        "max_force_difference_eV_A": found.holes.max_force_difference_eV_A,
    }
