"""What runs have stored: frames from MD17's files, extended XYZ, and folders of i-PI."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.io import iread

from mts_driver.analysis.properties import step_fs
from mts_driver.analysis.run_folder import RunFolder
from mts_driver.analysis.trajectory import columns_by_step
from mts_driver.errors import UserError
from mts_driver.potentials.backends import file_and_options
from mts_driver.runs.input.read import read_input
from mts_driver.structures.files import read_atoms, read_structure
from mts_driver.structures.tensors import inertial_masses
from mts_driver.super_resolution.files.md17 import read_md17
from mts_driver.super_resolution.frames import Frames
from mts_driver.units import AU_TIME_FS, BOHR_A, HARTREE_PER_BOHR_EV_A

POSITIONS, VELOCITIES, FORCES = "superres_positions", "superres_velocities", "superres_forces"
"""Files of a run with ``--store-for-superres``."""
_VECTORS = {VELOCITIES: BOHR_A / AU_TIME_FS, FORCES: HARTREE_PER_BOHR_EV_A}
SAME_TIME_FS = 1e-4


@dataclass(frozen=True, eq=False)
class Stored:
    """A stored trajectory.

    Attributes
    ----------
    frames : Frames
        What is in it.
    atoms : ase.Atoms
        The system, with the masses of the run, for potentials and for what is written.
    student, teacher : str or None
        The specifications of the run's models, where they are known.
    input : Path or None
        Of a run under i-PI.
    steps : array of int, shape (T,), or None
        Its outer steps at which frames are stored.
    start_fs : float
        When the first frame was.
    """

    frames: Frames
    atoms: Atoms
    student: str | None = None
    teacher: str | None = None
    input: Path | None = None
    steps: np.ndarray | None = None
    start_fs: float = 0.0

    def last(self, count: int) -> "Stored":
        """Return the last frames."""
        first = max(0, len(self.frames) - count)
        return replace(
            self,
            frames=self.frames.part(first, len(self.frames)),
            steps=None if self.steps is None else self.steps[first:],
            start_fs=self.start_fs + first * self.frames.timestep_fs,
        )


def read_stored(
    path: Path | str, *, timestep_fs: float | None = None, last: int | None = None
) -> Stored:
    """Read a trajectory.

    Parameters
    ----------
    path : path
        ``*.npz`` of MD17's format; a file of frames that ASE reads, such as that of
        `mts_driver.simulate`, with momenta, and forces where they are known; or the folder of a run
        with ``--store-for-superres``.
    timestep_fs : float, optional
        Between the frames of a file that does not say it.
    last : int, optional
        Only so many frames at the end, where the rest would take memory and time.

    Raises
    ------
    UserError
        If it is something else or damaged; frames do not follow one another evenly, are of other
        atoms or another cell than the first, or have velocities or forces in some frames only.
    """
    path = Path(path)
    if timestep_fs is not None and not timestep_fs > 0:
        raise UserError(f"timestep_fs={timestep_fs:g}: give a number above 0.")
    if path.suffix == ".npz":
        frames = read_md17(path, timestep_fs=timestep_fs)
        found = Stored(frames, Atoms(frames.numbers, frames.positions_A[0]))
    elif path.is_dir() or path.suffix == ".xml":
        found = _read_ipi(path, timestep_fs, last)
    else:
        found = _read_file(path, timestep_fs)
    return found if last is None else found.last(last)


def _read_file(path: Path, timestep_fs: float | None) -> Stored:
    if not path.exists():
        raise UserError(f"'{path}' does not exist.")
    try:
        found = list(iread(path, index=":"))
    except Exception as error:  # ASE's readers raise anything
        raise UserError(f"'{path}' cannot be read ({type(error).__name__}: {error}).") from error
    if len(found) < 2:
        raise UserError(f"'{path}' has {len(found)} frame: there is no gap to fill.")
    atoms = read_atoms(found[0], name=str(path))
    for k, frame in enumerate(found):
        if not np.array_equal(frame.numbers, found[0].numbers):
            raise UserError(
                f"frame {k} of '{path}' has other atoms than the first, or another order of them."
            )
        if not np.allclose(frame.cell.array, found[0].cell.array, rtol=0, atol=1e-6):
            raise UserError(
                f"frame {k} of '{path}' has another cell than the first: only constant "
                "volume is supported."
            )
    masses = inertial_masses(atoms, found[0].get_masses()).numpy()
    velocities = _all_or_none(path, "velocities", [f.has("momenta") for f in found])
    forces = _all_or_none(path, "forces", [_has_forces(f) for f in found])
    frames = Frames(
        found[0].numbers,
        _interval_fs(path, found, timestep_fs),
        np.stack([f.positions for f in found]),
        np.stack([f.get_velocities() * units.fs for f in found]) if velocities else None,
        np.stack([f.get_forces(apply_constraint=False) for f in found]) / masses[:, None]
        if forces and velocities
        else None,
        masses,
        found[0].cell.array if found[0].pbc.any() else None,
    )
    atoms.set_masses(found[0].get_masses())
    return Stored(frames, atoms, start_fs=1e3 * float(found[0].info.get("time_ps", 0.0)))


def _has_forces(frame: Atoms) -> bool:
    return frame.calc is not None and "forces" in frame.calc.results


def _all_or_none(path: Path, what: str, known: list[bool]) -> bool:
    if any(known) and not all(known):
        raise UserError(
            f"frame {known.index(False)} of '{path}' has no {what}, others have: cut the "
            "trajectory there, or leave them out of all frames."
        )
    return known[0]


def _interval_fs(path: Path, found: list[Atoms], timestep_fs: float | None) -> float:
    times = [1e3 * f.info["time_ps"] for f in found if "time_ps" in f.info]
    if len(times) < len(found):
        if timestep_fs is None:
            raise UserError(
                f"'{path}' does not say when its frames are (info time_ps): give the time between "
                "them, --timestep-fs."
            )
        return timestep_fs
    return _even(path, np.array(times), timestep_fs)


def _even(path: Path, times_fs: np.ndarray, timestep_fs: float | None) -> float:
    apart = np.diff(times_fs)
    usual = float(np.median(apart))
    off = np.abs(apart - usual) > SAME_TIME_FS
    if off.any() or not usual > 0:
        k = int(off.argmax())
        raise UserError(
            f"'{path}' jumps from {times_fs[k]:g} to {times_fs[k + 1]:g} fs behind frame {k}, "
            f"frames are {usual:g} fs apart elsewhere: cut the trajectory there."
        )
    if timestep_fs is not None and abs(timestep_fs - usual) > SAME_TIME_FS:
        raise UserError(f"timestep_fs={timestep_fs:g}: '{path}' has frames every {usual:g} fs.")
    return usual


def _read_ipi(path: Path, timestep_fs: float | None, last: int | None) -> Stored:
    folder = RunFolder.find(path)
    stem = folder.properties.name.rpartition(".")[0]
    files = {
        what: folder.path / f"{stem}.{what}_0.{suffix}"
        for what, suffix in ((POSITIONS, "extxyz"), (VELOCITIES, "xyz"), (FORCES, "xyz"))
    }
    for file in files.values():
        if not file.exists():
            raise UserError(
                f"'{file}' does not exist: a run stores what is needed here with `mts prepare "
                "--store-for-superres`."
            )
    atoms = read_structure(folder.path / "start.extxyz")
    start = next(iread(folder.path / "start.extxyz", index="-1:"))
    symbols = atoms.get_chemical_symbols()
    positions = columns_by_step(files[POSITIONS], symbols, last)
    vectors = {
        what: {n: unit * a for n, a in columns_by_step(files[what], symbols, last).items()}
        for what, unit in _VECTORS.items()
    }
    # a kill may leave the last frame in some of the files only
    steps = sorted(set(positions) & set(vectors[VELOCITIES]) & set(vectors[FORCES]))
    if len(steps) < 2:
        raise UserError(f"'{path}' has stored {len(steps)} frame: there is no gap to fill.")
    masses = inertial_masses(atoms, start.get_masses()).numpy()
    x, v, f = (
        np.stack([found[step] for step in steps])
        for found in (positions, vectors[VELOCITIES], vectors[FORCES])
    )
    frames = Frames(
        atoms.numbers,
        _even(path, outer_step_fs(path) * np.array(steps), timestep_fs),
        *(x, v, f / masses[:, None], masses),
        None if folder.isolated else start.cell.array,
    )
    atoms.set_masses(start.get_masses())
    if folder.isolated:
        atoms.set_cell(None)
        atoms.pbc = False
    file = path if path.is_file() else path / "input.xml"
    start_fs = frames.timestep_fs * steps[0] / max(1, steps[1] - steps[0])
    return Stored(frames, atoms, *_models_of(file), file, np.array(steps), start_fs)


def outer_step_fs(path: Path) -> float:
    """Return the time of an outer step of a run, as it has printed it.

    Raises
    ------
    UserError
        If there is no run, or it has not printed it.
    """
    return step_fs(RunFolder.find(path).properties)


def _models_of(path: Path) -> tuple[str | None, str | None]:
    """Return the specifications of student and teacher in a run's input, if it has them."""
    found = read_input(path)
    models = [found.models.get(name or "", "") for name in (found.student, found.teacher)]
    parts = [file_and_options(model.removeprefix("student:")) for model in models]
    files = [(path.parent / file, options) for file, options in parts]
    student, teacher = (
        f"student:{file}{options}"
        if model.startswith("student:") and file.is_file()
        else model or None
        for model, (file, options) in zip(models, files, strict=True)
    )
    return student, teacher
