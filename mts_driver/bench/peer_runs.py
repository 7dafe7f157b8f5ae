"""ASE and plain i-PI with the same models as ASE calculators."""

import contextlib
import multiprocessing
import os
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
from ase import units
from ase.calculators.socketio import SocketClient
from ase.md.langevin import Langevin

from mts_driver.bench.calculators import calculator_of
from mts_driver.bench.ipi_runs import FRICTION_PER_PS, TEMPERATURE_K, Variant, write_input
from mts_driver.errors import UserError
from mts_driver.structures.files import read_structure
from mts_driver.structures.masses import repartitioned_masses
from mts_driver.structures.tensors import inertial_masses, thermal_velocities

PATIENCE_S = 300.0
"""How long the models may take to load."""


def run_ase(*, structure: str, model: str, device: str, steps: int) -> dict[str, Any]:
    """Time ASE's Langevin dynamics: single steps of 1 fs, natural masses.

    Returns
    -------
    dict
        ``steps``, ``wall_s`` and ``start_forces`` (N, 3), eV/Å.
    """
    atoms = read_structure(structure)
    atoms.calc = calculator_of(model, atoms.numbers.tolist(), device)
    forces = atoms.get_forces()
    masses = inertial_masses(atoms, repartitioned_masses(atoms, 0.0))
    atoms.set_velocities(thermal_velocities(masses, TEMPERATURE_K, 1).numpy() / units.fs)
    dynamics = Langevin(
        atoms,
        units.fs,
        temperature_K=TEMPERATURE_K,
        friction=FRICTION_PER_PS / (1000.0 * units.fs),
        fixcm=False,
        rng=np.random.default_rng(1),
    )
    dynamics.run(1)
    start = time.perf_counter()
    dynamics.run(steps)
    return {
        "steps": steps,
        "wall_s": time.perf_counter() - start,
        "start_forces": forces.tolist(),
    }


def run_native_ipi(
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
    """Time i-PI's own multiple time steps, with a process of ASE's socket client a model.

    The input is ours with ``splitting='baoab'`` and without the options of our integrator; nothing
    of this project runs in i-PI's process. ``steps`` are outer ones.

    Returns
    -------
    dict
        ``steps``, ``wall_s`` and ``start_forces`` (N, 3), eV/Å.
    """
    variant = Variant(
        label="native",
        teacher=teacher,
        student=student,
        outer_fs=outer_fs,
        inner_fs=inner_fs,
        hydrogen_mass=hydrogen_mass,
    )
    with tempfile.TemporaryDirectory(prefix="mts-bench-") as folder:
        file = write_input(Path(folder), read_structure(structure), variant, steps)
        addresses = _make_native(file)
        models = {"teacher": teacher, "student": student}
        with _clients(models, addresses, structure, device):
            return _step_with_ipi(file, steps)


def _step_with_ipi(file: Path, steps: int) -> dict[str, Any]:
    from ipi.utils.scripting import InteractiveSimulation

    os.chdir(file.parent)
    with open(file) as text:
        simulation = InteractiveSimulation(text)
    forces = simulation.get_structures().get_forces()
    simulation.run(1, write_outputs=False)
    start = time.perf_counter()
    simulation.run(steps, write_outputs=False)
    wall_s = time.perf_counter() - start
    simulation.stop()
    return {"steps": steps, "wall_s": wall_s, "start_forces": forces.tolist()}


def _make_native(file: Path) -> dict[str, str]:
    """Turn an input of ours into one of plain i-PI; return the addresses of its sockets."""
    tree = ET.parse(file)
    (dynamics,) = tree.iter("dynamics")
    dynamics.set("splitting", "baoab")
    dynamics.remove(next(dynamics.iter("force_clip")))
    tree.write(file)
    return {
        node.get("name", ""): (node.findtext("address") or "").strip()
        for node in tree.iter("ffsocket")
    }


@contextlib.contextmanager
def _clients(
    models: dict[str, str], addresses: dict[str, str], structure: str, device: str
) -> Iterator[None]:
    """Keep a process that serves each model, while they are needed."""
    spawn = multiprocessing.get_context("spawn")
    ready = {name: spawn.Event() for name in models}
    clients = [
        spawn.Process(
            target=_serve_through_ase,
            args=(model, structure, addresses[name], device, ready[name]),
            daemon=True,
        )
        for name, model in models.items()
    ]
    for client in clients:
        client.start()
    try:
        for name, event in ready.items():
            if not event.wait(PATIENCE_S):
                raise UserError(f"the {name} {models[name]!r} was not ready in {PATIENCE_S:g} s")
        yield
    finally:
        for client in clients:
            client.terminate()
            client.join()


def _serve_through_ase(model: str, structure: str, address: str, device: str, ready: Event) -> None:
    """Load a model, say so, and answer i-PI as the documentation of ASE shows."""
    atoms = read_structure(structure)
    atoms.calc = calculator_of(model, atoms.numbers.tolist(), device)
    atoms.get_forces()
    ready.set()
    while True:
        try:
            client = SocketClient(unixsocket=address)
            break
        except (FileNotFoundError, ConnectionRefusedError):  # i-PI has not opened it yet
            time.sleep(0.05)
    client.run(atoms, use_stress=False)
