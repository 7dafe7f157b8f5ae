"""Velocities that a run has stored often enough to show its vibrations."""

import re
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read

from mts_driver.analysis.dynamics.motion import Motion, motion
from mts_driver.analysis.properties import step_fs
from mts_driver.analysis.run_folder import RunFolder
from mts_driver.analysis.trajectory import columns_by_step, last_frames
from mts_driver.errors import UserError
from mts_driver.structures.reading.ipi_labels import element_of
from mts_driver.units import LIGHT_CM_FS

HIGHEST_CM = 4500.0
"""Of a density of states; nothing vibrates faster."""
LONGEST_INTERVAL_FS = 0.5 / (LIGHT_CM_FS * HIGHEST_CM)
"""Two frames in the shortest period."""
_STEP = re.compile(r"Step:\s*(\d+)")


def motion_as_stored(folder: RunFolder, *, picoseconds: float) -> Motion:
    """Return what the stored velocities of the last part of a run tell.

    Parameters
    ----------
    folder : RunFolder
        Its masses are those of ``start.extxyz``, of ``mts prepare``, and else natural ones.
    picoseconds : float
        How much of its end is taken, at most.

    Raises
    ------
    UserError
        If the run stores none, too seldom or too few, or they are of a path integral.
    """
    if not folder.velocities:
        raise UserError(
            "the run stores no velocities; `mts prepare --store-for-superres` has it do so."
        )
    if len(folder.velocities) > 1:
        raise UserError("velocities of the beads of a path integral are not those of atoms.")
    file = folder.velocities[0]
    symbols, steps = _first_frames(file)
    interval_fs = step_fs(folder.properties) * (steps[1] - steps[0])
    if interval_fs > LONGEST_INTERVAL_FS:
        raise UserError(
            f"the run stores velocities every {interval_fs:.3g} fs, and vibrations of up to "
            f"{HIGHEST_CM:g}/cm need {LONGEST_INTERVAL_FS:.1f} fs: shorten the stride, or fill in "
            "what is between with `mts prepare --store-for-superres`."
        )
    wanted = 1 + max(1, int(1e3 * picoseconds / interval_fs + 1e-6))
    found = columns_by_step(file, symbols.tolist(), wanted)
    kept = np.array(sorted(found))[-wanted:]
    if len(kept) < 2 or (np.diff(kept) != steps[1] - steps[0]).any():
        raise UserError(f"{file} has no two frames, or a gap in its last {picoseconds:g} ps.")
    return motion(
        [np.stack([found[step] for step in kept])],
        _masses(folder.path, symbols),
        symbols,
        interval_fs=interval_fs,
        frames=f"stored every {interval_fs:.3g} fs",
    )


def _first_frames(file: Path) -> tuple[np.ndarray, list[int]]:
    """Return elements, and the steps of the first two frames."""
    with file.open(errors="replace") as stream:
        first = stream.readline()
    symbols, steps = np.empty(0, str), list[int]()
    for _, comment, rows in last_frames(file, int(first) if first.strip().isdigit() else 0, None):
        symbols = np.array([element_of((row.split() or ["X"])[0]) or "X" for row in rows])
        step = _STEP.search(comment)
        if step is None:
            break
        steps.append(int(step.group(1)))
        if len(steps) == 2:
            return symbols, steps
    raise UserError(f"{file} has no two frames of i-PI.")


def _masses(folder: Path, symbols: np.ndarray) -> np.ndarray:
    """Masses of the run's start, where it is the same atoms, Da; else natural ones."""
    start = folder / "start.extxyz"
    if start.is_file():
        found = read(start, index=-1)
        if isinstance(found, Atoms) and found.get_chemical_symbols() == symbols.tolist():
            return np.asarray(found.get_masses())
    return np.asarray(Atoms(symbols.tolist()).get_masses())
