"""From a stored trajectory to a dense one: `apply`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mts_driver.errors import UserError
from mts_driver.files import check_output, replacing
from mts_driver.progress import Progress
from mts_driver.super_resolution.dense import Found, dense, intervals
from mts_driver.super_resolution.doubts import unexplained
from mts_driver.super_resolution.files.stored import Stored, read_stored
from mts_driver.super_resolution.files.write import check_format, open_output
from mts_driver.super_resolution.fillers import REPLAY, Filler, filler
from mts_driver.super_resolution.frames import gaps_from


@dataclass(frozen=True, eq=False)
class Applied:
    """A dense trajectory.

    Attributes
    ----------
    file : Path
        Where it is.
    frames : int
        In it.
    model : str
        That filled the gaps.
    found : Found
        What was noticed.
    """

    file: Path
    frames: int
    model: str
    found: Found


def apply(
    path: Path,
    output: Path,
    *,
    every_fs: float,
    model: str | None = None,
    teacher: str | None = None,
    teacher_calls: int = 0,
    timestep_fs: float | None = None,
    leave_out: bool = False,
    device: str = "cpu",
    dtype: str = "float32",
    force: bool = False,
    tell: Callable[[str], None] = print,
    report: Progress = lambda *_: None,
) -> Applied:
    """Fill the gaps of a stored trajectory.

    Parameters
    ----------
    path : Path
        See `mts_driver.super_resolution.files.stored.read_stored`.
    output : Path
        Of one of the formats of `mts_driver.super_resolution.files.write`.
    every_fs : float
        Between the frames that are written; a whole fraction of what is stored.
    model : str, optional
        See `mts_driver.super_resolution.fillers.filler`; by default ``replay`` where the first
        outer step of the run comes out as it was, and else the student of the run.
    teacher, teacher_calls : str, int
        What the atoms moved in (by default the teacher of the run), and how often it is asked in
        each gap.
    leave_out : bool
        Whether gaps that cannot be of one trajectory are left open, and said to be.
    tell : callable
        Takes sentences about what is noticed.

    Raises
    ------
    UserError
        If something cannot be; nothing is written then.
    """
    check_output(output, name="output", force=force)
    check_format(output, open_gaps=leave_out)
    stored = read_stored(path, timestep_fs=timestep_fs)
    steps = intervals(stored.frames.timestep_fs, every_fs)
    fill = None
    if model is None and not teacher_calls:
        fill = replayed(stored, steps, device=device, dtype=dtype, tell=tell)
    model = model or (REPLAY if fill else stored.student)
    if model is None:
        raise UserError(
            f"'{path}' does not say which student it was run with: give a model, such as a "
            "student, a file of `mts superres train`, or quintic."
        )
    if teacher_calls and teacher is None:
        teacher = stored.teacher
    fill = fill or filler(
        model, stored, teacher=teacher, teacher_calls=teacher_calls, device=device, dtype=dtype
    )
    total = (len(stored.frames) - 1) * steps + 1
    found, frames = Found(), 0
    pieces = dense(stored.frames, fill, every_fs=every_fs, leave_out=leave_out, found=found)
    with replacing(output) as part, open_output(part, stored, every_fs, total) as file:
        for piece in pieces:
            frames += file.add(piece)
            report("frames", frames, total)
    off, expected = found.astray_A, found.expected_A
    if off is not None and expected is not None and unexplained(off, expected):
        tell(
            f"shots come out {off:.1g} Å from the next frame, and the student's errors explain "
            f"{expected:.1g} Å of it: a thermostat kicks the atoms, the centre of mass is held, "
            "frames are noisy or rounded, or the student is of another system."
        )
    if found.left_out:
        tell(
            f"{len(found.left_out)} of {found.gaps} gaps are left open, behind the stored frames "
            f"{', '.join(map(str, found.left_out))}."
        )
    return Applied(output, frames, model, found)


def replayed(
    stored: Stored, steps: int, *, device: str, dtype: str, tell: Callable[[str], None]
) -> Filler | None:
    """Return a replay if the run's own noise takes it from the first frame to the second."""
    if stored.input is None:
        return None
    try:
        fill = filler(REPLAY, stored, device=device, dtype=dtype)
        fill(gaps_from(stored.frames, np.zeros(1, int), 1)[0], steps)
    except UserError as error:
        tell(f"not replayed: {error} Shots with the student fill the gaps.")
        return None
    return fill
