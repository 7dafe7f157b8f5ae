"""From trajectories to a model that fills gaps: `train`."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from mts_driver import __version__
from mts_driver.distillation.training.budget import TrainingBudget
from mts_driver.errors import UserError
from mts_driver.files import check_output, first_difference, read_json, write_json
from mts_driver.potentials.student.file import save_student
from mts_driver.progress import Progress
from mts_driver.super_resolution.compare import Errors, errors_of, errors_of_splines
from mts_driver.super_resolution.files.stored import Stored, read_stored
from mts_driver.super_resolution.fillers import filler
from mts_driver.super_resolution.networks.file import save_network
from mts_driver.super_resolution.networks.recurrences import NETWORKS
from mts_driver.super_resolution.networks.training import TrainingSettings, train_network
from mts_driver.super_resolution.student_training import train_student

STUDENT = "student"
DEFAULT_MINUTES = 5.0


@dataclass(frozen=True, eq=False)
class Trained:
    """A model, and what it is worth.

    Attributes
    ----------
    file : Path
        The model.
    errors : dict of str to Errors
        Of the model and of splines on the unseen parts; empty where no gap is known.
    cost : dict
        Updates and seconds.
    """

    file: Path
    errors: dict[str, Errors]
    cost: dict[str, Any]


def train(
    paths: Sequence[Path],
    output: Path,
    *,
    model: str = STUDENT,
    base: str | None = None,
    gap_fs: float | None = None,
    timestep_fs: float | None = None,
    both_ways: bool = True,
    window: int = 1,
    hidden: int = 128,
    learning_rate: float = 3e-3,
    test_share: float = 0.2,
    minutes: float | None = None,
    updates: int | None = None,
    seed: int = 1,
    force: bool = False,
    command: str = "",
    report: Progress = lambda *_: None,
) -> Trained:
    """Train on trajectories, and compare with splines on their last parts.

    A killed training goes on at the same call; its state is beside the output.

    Parameters
    ----------
    paths : sequence of Path
        Trajectories, see `read_stored`: for a network with all frames, for a student with those
        that are stored.
    output : Path
        ``*.safetensors``.
    model : str
        ``student``, or one of `NETWORKS`.
    base : str, optional
        Student to start from.
    gap_fs : float, optional
        From one stored frame to the next. Networks need it. A student is trained on frames so far
        apart; by default on all.
    minutes, updates : float, int, optional
        The budget; one of both, 5 minutes by default.

    Raises
    ------
    UserError
        If something is out of range or does not fit together, before the work.
    """
    if model not in (STUDENT, *NETWORKS):
        raise UserError(f"model={model!r}: train {', '.join((STUDENT, *NETWORKS))}.")
    if base is not None and model != STUDENT:
        raise UserError(f"base={base!r} is a student to start from: only for model='student'.")
    if minutes is not None and updates is not None:
        raise UserError("minutes and updates are two budgets: give one of them.")
    if updates is not None and updates < 1:
        raise UserError(f"updates={updates}: give 1 or more.")
    check_output(output, name="output", suffix=".safetensors", force=True)
    checkpoint, asked = (output.with_suffix(f".training.{end}") for end in ("pt", "json"))
    if force:
        checkpoint.unlink(missing_ok=True)
        asked.unlink(missing_ok=True)
    if not checkpoint.exists():
        check_output(output, name="output", suffix=".safetensors", force=force)
    for name, value in (("gap_fs", gap_fs), ("minutes", minutes), ("timestep_fs", timestep_fs)):
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{name}={value:g}: give a finite number above 0.")
    if not 0 < test_share < 1:
        raise UserError(f"test_share={test_share:g}: give a number from 0 to 1.")
    runs = [read_stored(path, timestep_fs=timestep_fs) for path in paths]
    if not runs:
        raise UserError("give a trajectory to train on.")
    _require_one_interval(paths, runs)
    stride = _stride(runs[0].frames.timestep_fs, gap_fs, model)
    identity = {"model": model, "base": base, "gap_fs": gap_fs, "test_share": test_share}
    identity |= {"seed": seed, "trajectories": _digest(runs)}
    if checkpoint.exists():
        _require_same(asked, identity)
    write_json(asked, identity)
    budget = TrainingBudget(
        seconds=None if updates else 60.0 * (minutes or DEFAULT_MINUTES), updates=updates
    )
    how: dict[str, Any] = {"checkpoint": checkpoint, "report": report}
    record: dict[str, Any] = {
        "command": command,
        "mts_driver": __version__,
        "runs": [path.name for path in paths],
    }
    if model == STUDENT:
        student, cost = train_student(
            [run.frames for run in runs],
            stride=stride,
            test_share=test_share,
            base=base,
            budget=budget,
            seed=seed,
            **how,
        )
        save_student(student, output, record | {"updates": cost["updates"]})
    else:
        settings = TrainingSettings(
            network=model,
            both_ways=both_ways,
            stride=stride,
            window=window,
            hidden=hidden,
            learning_rate=learning_rate,
            test_share=test_share,
            seed=seed,
        )
        frames = [run.frames for run in runs]
        fill, cost = train_network(frames, settings, budget, **how)
        save_network(fill, output, record | asdict(settings) | {"updates": cost["updates"]})
    checkpoint.unlink(missing_ok=True)
    asked.unlink(missing_ok=True)
    found = _compared(runs, output, model, stride, test_share, window)
    return Trained(output, found, cost)


def _digest(runs: Sequence[Stored]) -> str:
    ends = b"".join(run.frames.positions_A[[0, -1]].tobytes() for run in runs)
    return sha256(ends + str([len(run.frames) for run in runs]).encode()).hexdigest()


def _require_same(file: Path, identity: dict[str, Any]) -> None:
    """Refuse to go on with the training of something else that was killed."""
    remedy = "give another output, or force=True to train anew."
    before = read_json(file, remedy=remedy)
    if (name := first_difference(before, identity)) is not None:
        raise UserError(
            f"'{file}' is of a training with {name}={before.get(name)!r}, not "
            f"{identity.get(name)!r}: {remedy}"
        )


def _require_one_interval(paths: Sequence[Path], runs: Sequence[Stored]) -> None:
    first = runs[0].frames.timestep_fs
    for path, run in zip(paths, runs, strict=True):
        if abs(run.frames.timestep_fs - first) > 1e-6 * first:
            raise UserError(
                f"'{path}' has frames every {run.frames.timestep_fs:g} fs, '{paths[0]}' every "
                f"{first:g} fs: give those of one interval."
            )


def _stride(timestep_fs: float, gap_fs: float | None, model: str) -> int:
    if gap_fs is None:
        if model != STUDENT:
            raise UserError(
                f"model={model!r}: give gap_fs, the time between the frames that will be stored."
            )
        return 1
    stride = round(gap_fs / timestep_fs)
    if stride < 1 or abs(stride * timestep_fs - gap_fs) > 1e-6 * gap_fs:
        raise UserError(
            f"gap_fs={gap_fs:g}: the frames are {timestep_fs:g} fs apart; give a multiple of it."
        )
    return stride


def _compared(
    runs: Sequence[Stored], file: Path, model: str, stride: int, test_share: float, window: int
) -> dict[str, Errors]:
    """Return the errors on the last parts of trajectories that were not trained on."""
    if stride < 2:
        return {}
    parts = [run.frames.split(test_share)[1] for run in runs]
    if min(map(len, parts)) < stride + 2 * window:
        return {}
    name = f"student:{file}" if model == STUDENT else str(file)
    # one call a system: a student is bound to its atoms
    same = [k for k, run in enumerate(runs) if _alike(run, runs[0])]
    fill = filler(name, replace(runs[0], frames=parts[0]))
    chosen = [parts[k] for k in same]
    return {model: errors_of(fill, chosen, stride, window), **errors_of_splines(chosen, stride)}


def _alike(one: Stored, other: Stored) -> bool:
    here, there = (
        np.zeros((3, 3)) if s.frames.cell_A is None else s.frames.cell_A for s in (one, other)
    )
    return (
        np.array_equal(one.frames.numbers, other.frames.numbers)
        and np.allclose(one.frames.inertia, other.frames.inertia)
        and np.allclose(here, there)
    )
