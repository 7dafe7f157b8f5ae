"""How the atoms of a run move between its outer steps: spectra from frames that are filled in."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mts_driver.analysis.dynamics.motion import Motion, motion
from mts_driver.errors import UserError
from mts_driver.progress import Progress
from mts_driver.super_resolution.apply import replayed
from mts_driver.super_resolution.dense import Found, dense
from mts_driver.super_resolution.files.stored import Stored, outer_step_fs, read_stored
from mts_driver.super_resolution.fillers import REPLAY, Filler, filler

LONGEST_INTERVAL_FS = 1.0


def motion_of_run(
    path: Path,
    *,
    picoseconds: float,
    model: str | None = None,
    tell: Callable[[str], None] = print,
    report: Progress = lambda *_: None,
) -> Motion:
    """Fill in the last part of a run, and return what its velocities tell.

    Parameters
    ----------
    path : Path
        Folder of a run with ``--store-for-superres``.
    picoseconds : float
        How much of its end is taken, at most.
    model : str, optional
        As of `mts_driver.super_resolution.apply.apply`; where there is no student, a quintic
        spline.

    Raises
    ------
    UserError
        If the run has stored too little, or gaps cannot be filled.
    """
    if not picoseconds > 0:
        raise UserError(f"picoseconds={picoseconds:g}: give a number above 0.")
    last = read_stored(path, last=1 + max(1, int(1e3 * picoseconds / outer_step_fs(path))))
    gap_fs = last.frames.timestep_fs
    steps = max(2, int(np.ceil(gap_fs / LONGEST_INTERVAL_FS - 1e-6)))
    every_fs = gap_fs / steps
    fill = None
    if model is None:
        fill = replayed(last, steps, device="cpu", dtype="float32", tell=tell)
    if fill is not None:
        try:
            velocities = [_velocities(last, fill, every_fs, report)]
            model = REPLAY
        except UserError as error:
            tell(f"not replayed: {error} Shots with the student fill the gaps.")
    if model != REPLAY:
        model = model or last.student or "quintic"
        velocities = [_velocities(last, filler(model, last), every_fs, report)]
    masses = np.where(np.isfinite(last.frames.inertia), last.frames.inertia, 0.0)
    return motion(
        velocities,
        masses,
        np.array(last.atoms.get_chemical_symbols()),
        interval_fs=every_fs,
        frames=f"stored every {gap_fs:g} fs, filled in by {model}",
    )


def _velocities(stored: Stored, fill: Filler, every_fs: float, report: Progress) -> np.ndarray:
    """Velocities (F, N, 3) of all frames, those between the stored ones included."""
    found = list[np.ndarray]()
    count = len(stored.frames) - 1
    pieces = dense(stored.frames, fill, every_fs=every_fs, found=Found())
    for done, piece in enumerate(pieces):
        if piece.velocities_A_fs is None:
            raise UserError("the stored frames have no velocities.")
        found.append(piece.velocities_A_fs)
        report("frames of the spectrum", done, count)
    return np.concatenate(found)
