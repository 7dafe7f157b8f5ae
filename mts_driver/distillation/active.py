"""Active learning: the frames at which a student is wrong, from its own dynamics or from a run."""

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mts_driver.distillation.labels.label_file import complete_frames
from mts_driver.errors import UserError
from mts_driver.files import read_json
from mts_driver.simulation.holes import HARD_FILE, HOLES_FILE, MOST_FRAMES
from mts_driver.simulation.watched_run import Watched, run_and_watch

SPACING_FS = 10.0
"""Frames of a run that are closer in time show the same: about one period of the O-H stretch."""

__all__ = ["Watched", "frames_of_run", "run_and_watch"]


def frames_of_run(folder: Path, *, most: int = MOST_FRAMES) -> list[Atoms]:
    """Return the frames at which the student of an ``mts run`` was wrong.

    Of frames that are closer than 10 fs in time only the worst is kept, by the largest
    |F_teacher − F_student|; what a kill left of its last frame is passed over.

    Parameters
    ----------
    folder : Path
        Of the run, or its input file.
    most : int
        Frames to return; the worst are taken.

    Returns
    -------
    list of ase.Atoms
        In the order of time. ``info`` is that of `Watched.frames`, with the specification of the
        ``teacher``; the labels are missing where the run did not have them.

    Raises
    ------
    UserError
        If there is no run, or it left no such frame.
    """
    if most < 1:
        raise UserError(f"most={most}: ask for at least one frame.")
    folder = folder.parent if folder.is_file() else folder
    if not folder.is_dir():
        raise UserError(f"run folder {str(folder)!r} does not exist: give that of an `mts run`.")
    frames = [frame for name in (HOLES_FILE, HARD_FILE) for frame in complete_frames(folder / name)]
    if not frames:
        _explain_no_frames(folder)
    return sorted(_distinct(frames)[:most], key=lambda frame: float(frame.info["time_fs"]))


def _distinct(frames: list[Atoms]) -> list[Atoms]:
    """Without those that are close in time to a worse one; the worst first."""
    kept: list[Atoms] = []
    for frame in sorted(frames, key=_badness, reverse=True):
        time, system = frame.info["time_fs"], frame.info.get("system", 0)
        if all(
            abs(other.info["time_fs"] - time) >= SPACING_FS or other.info.get("system", 0) != system
            for other in kept
        ):
            kept.append(frame)
    return kept


def _badness(frame: Atoms) -> float:
    difference = float(frame.info["max_force_difference_eV_A"])
    return difference if np.isfinite(difference) else np.inf


def _explain_no_frames(folder: Path) -> None:
    summary = folder / "summary.json"
    if not summary.is_file():
        raise UserError(
            f"{str(folder)!r} holds no {HOLES_FILE}, {HARD_FILE} or summary.json: give the folder "
            "of an `mts run` that has ended."
        )
    remedy = "give the folder of another run, or run this one again."
    found: dict[str, Any] = read_json(summary, remedy=remedy)
    if found.get("holes") is None:
        reason = found.get("holes_reason", "it was made by a version that kept no frames")
        raise UserError(
            f"the run in {str(folder)!r} has no frames to learn from: {reason}. Run it again with "
            "a teacher and a student."
        )
    if found["holes"]:
        raise UserError(
            f"the run in {str(folder)!r} had {found['holes']} outer steps with a hole, but no "
            "frame that can be learned from: start it from a relaxed structure (mts prepare)."
        )
    largest = found.get("max_force_difference_eV_A")
    shown = "" if largest is None else f", max |F_T-F_S| was {largest:.2f} eV/Å"
    raise UserError(
        f"the run in {str(folder)!r} was clean: {found.get('steps', 0)} outer steps "
        f"without a hole{shown}. There is nothing to learn from it; a longer or hotter run may "
        "find more."
    )
