"""Trajectories of the molecules of MD17, for super-resolution: every step of 0.5 fs kept."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from integrators.bath import Bath
from integrators.engine import run
from integrators.levels import FULL, SingleLevel
from integrators.splitting import baoab
from integrators.state import MDState, Potential
from mts_driver.distillation.starting_systems.molecules import from_smiles
from mts_driver.errors import UserError
from mts_driver.potentials.load import load_potential
from mts_driver.progress import Progress
from mts_driver.simulation.thermal_state import thermal_state
from mts_driver.super_resolution.files.md17 import made_of, write_md17
from mts_driver.super_resolution.frames import Frames

SMILES = {
    "benzene": "c1ccccc1",
    "ethanol": "CCO",
    "malonaldehyde": "O=C/C=C\\O",
    "uracil": "O=C1C=CNC(=O)N1",
    "toluene": "Cc1ccccc1",
    "naphthalene": "c1ccc2ccccc2c1",
    "salicylic_acid": "OC(=O)c1ccccc1O",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
}
ENSEMBLES = ("nve", "nvt")
SETTLE_PS = 1.0
SETTLE_FRICTION_PER_PS = 10.0
FRICTION_PER_PS = 1.0


def file_of(folder: Path, name: str, ensemble: str, number: int) -> Path:
    """Return where a trajectory is."""
    return folder / f"{name}-{ensemble}-{number}.npz"


def make_trajectories(
    folder: Path,
    names: Sequence[str] = tuple(SMILES),
    *,
    ensembles: Sequence[str] = ENSEMBLES,
    teacher: str = "so3lr",
    replicas: int = 4,
    picoseconds: float = 5.0,
    timestep_fs: float = 0.5,
    temperature_K: float = 500.0,
    seed: int = 1,
    report: Progress = lambda *_: None,
) -> list[Path]:
    """Run the teacher from the molecules' geometries; what is there already is left alone.

    Each molecule settles under a thermostat of 10/ps for 1 ps; then follow velocity Verlet (nve)
    or BAOAB with 1/ps (nvt). Replicas run side by side, in double precision.

    Returns
    -------
    list of Path
        ``NAME-ENSEMBLE-NUMBER.npz``, see `mts_driver.super_resolution.files.md17`.

    Raises
    ------
    UserError
        If a name or a number is not one that is possible, a file there is of another kind, RDKit
        is missing, or a trajectory blows up.
    """
    for kind, allowed in ((names, SMILES), (ensembles, ENSEMBLES)):
        for name in kind:
            if name not in allowed:
                raise UserError(f"{name!r} is not known: use {', '.join(allowed)}.")
    numbers = {"replicas": replicas, "picoseconds": picoseconds, "timestep_fs": timestep_fs}
    for name, value in (numbers | {"temperature_K": temperature_K}).items():
        if not value > 0:
            raise UserError(f"{name}={value:g}: give a number above 0.")
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, Any] = {"teacher": teacher, "temperature_K": temperature_K, "seed": seed}
    made |= {"replicas": replicas, "picoseconds": picoseconds, "timestep_fs": timestep_fs}
    wanted = [(name, ensemble) for name in names for ensemble in ensembles]
    paths = []
    for name, ensemble in wanted:
        files = [file_of(folder, name, ensemble, k + 1) for k in range(replicas)]
        paths += files
        this = made | {"molecule": name, "smiles": SMILES[name], "ensemble": ensemble}
        if all(path.exists() for path in files):
            if all(made_of(path) == this for path in files):
                continue
            raise UserError(
                f"{files[0].parent} holds trajectories of {name} that were made otherwise: give "
                "another folder, or remove them."
            )
        atoms = from_smiles(SMILES[name], name=name, seed=seed)
        potential = load_potential(teacher, atoms.numbers, dtype="float64")
        start = thermal_state(
            *(atoms, atoms.get_masses()),
            temperature_K=temperature_K,
            seed=seed,
            replicas=replicas,
        )
        steps = round(1000.0 * picoseconds / timestep_fs)

        def tell(done: int, name: str = name, ensemble: str = ensemble, steps: int = steps) -> None:
            report(f"{name}, {ensemble}", done, steps)

        kept = _run(start, potential, ensemble, steps, timestep_fs, temperature_K, seed, tell)
        masses = start.masses.numpy()[:, None]
        for k, path in enumerate(files):
            x, v, f = (np.stack([one[i][k] for one in kept]) for i in range(3))
            energies = np.stack([one[3][k] for one in kept])
            frames = Frames(atoms.numbers, timestep_fs, x, v, f / masses)
            write_md17(path, frames, energies, this)
    return paths


def _run(
    start: MDState,
    potential: Potential,
    ensemble: str,
    steps: int,
    timestep_fs: float,
    temperature_K: float,
    seed: int,
    tell: Callable[[int], None],
) -> list[list[np.ndarray]]:
    """Return positions, velocities, forces and energies of all frames, each (replicas, ...)."""
    levels, kept = SingleLevel(potential), list[list[np.ndarray]]()

    def keep(state: MDState) -> None:
        found = state.evaluations[FULL]
        parts = (state.positions, state.velocities, found.forces)
        kept.append(
            [a.reshape(-1, *a.shape[-2:]).numpy() for a in parts] + [found.energy.ravel().numpy()]
        )
        tell(len(kept))

    with torch.no_grad():
        bath = Bath.from_temperature(
            temperature_K=temperature_K, friction_per_ps=SETTLE_FRICTION_PER_PS
        )
        settling = round(1000.0 * SETTLE_PS / timestep_fs)
        how: dict[str, Any] = {"timestep": timestep_fs}
        state = run(start, levels, baoab(), steps=settling, bath=bath, seed=seed, **how)
        splitting = baoab().without_ou()
        if ensemble == "nvt":
            splitting = baoab()
            bath = Bath.from_temperature(
                temperature_K=temperature_K, friction_per_ps=FRICTION_PER_PS
            )
            how |= {"bath": bath, "seed": seed + 1}
        state = run(state, levels, splitting, steps=steps, on_step=keep, **how)
    if not bool(state.positions.isfinite().all()):
        raise UserError(
            f"timestep_fs={timestep_fs:g}: a trajectory has blown up; take a shorter step."
        )
    return kept
