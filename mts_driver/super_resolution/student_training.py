"""A student for the bridge: trained on the forces of a run's own stored frames."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from mts_driver.distillation.training.budget import TrainingBudget
from mts_driver.distillation.training.dataset import Graph, check_frames
from mts_driver.distillation.training.trainer import Trainer, TrainingSet
from mts_driver.errors import UserError
from mts_driver.potentials.student.file import find_student, read_student
from mts_driver.potentials.student.model import StudentConfig, StudentModel, check_config
from mts_driver.progress import Progress
from mts_driver.super_resolution.frames import Frames

CHANNELS, MESSAGES, HIDDEN = 32, 16, 128
"""Twice those of a student for dynamics: a frame within a gap is asked for once, not every step."""

MOST_ATOMS = 1_000_000
"""In all frames that are trained on: a graph of an atom takes about a kilobyte."""


def train_student(
    runs: Sequence[Frames],
    *,
    stride: int,
    test_share: float,
    base: str | None,
    budget: TrainingBudget,
    seed: int,
    checkpoint: Path,
    report: Progress = lambda *_: None,
) -> tuple[StudentModel, dict[str, Any]]:
    """Fit forces on every ``stride``-th frame of the first parts of trajectories.

    Parameters
    ----------
    runs : sequence of Frames
        With accelerations. Of one system or several, periodic or not.
    stride : int
        Frames from one that is taken to the next.
    test_share : float
        The last part of each trajectory, which is left out.
    base : str, optional
        Student to start from; None: a new one.
    checkpoint : Path
        Of the training; one that is there is continued.

    Returns
    -------
    StudentModel, dict
        And what it cost: updates, seconds, frames.

    Raises
    ------
    UserError
        If forces are not known, ``base`` does not know an element, or the checkpoint is of a
        student of another size.
    """
    frames = _labelled(runs, stride, test_share)
    torch.manual_seed(seed)
    model = _model(frames, base)
    check_frames(frames, model.config)
    forces = np.concatenate([a.get_array("teacher_forces")[_moves(a)] for a in frames])
    rms = float(np.sqrt(np.square(forces).mean()))
    data = TrainingSet([Graph.of(atoms, model.config) for atoms in frames], [], rms)
    trainer = Trainer(
        *(model, data),
        checkpoint=checkpoint,
        budget=budget,
        seed=seed,
        fine_tuning=base is not None,
    )

    def tell(spent: float, force_loss: float, _: float) -> None:
        error = 1e3 * rms * force_loss**0.5
        report(
            f"training, update {trainer.steps}, forces off {error:.0f} meV/Å", spent, budget.total
        )

    model = trainer.run(tell)
    cost = {"updates": trainer.steps, "training_s": trainer.elapsed_s, "frames": len(frames)}
    return model, cost


def _moves(atoms: Atoms) -> np.ndarray:
    moves: np.ndarray = atoms.get_array("force_weight") > 0
    return moves


def _labelled(runs: Sequence[Frames], stride: int, test_share: float) -> list[Atoms]:
    """Frames with forces; if there are very many, evenly chosen ones."""
    learn = [run.split(test_share)[0] for run in runs]
    known = [part.part(0, len(part), stride) for part in learn]
    atoms = sum(len(part) * len(part.numbers) for part in known)
    every = max(1, -(-atoms // MOST_ATOMS))
    found = []
    for run in (part.part(0, len(part), every) for part in known):
        if run.accelerations_A_fs2 is None:
            raise UserError("a student is trained on forces, and the frames have none.")
        moves = np.isfinite(run.inertia)
        forces = run.accelerations_A_fs2 * np.where(moves, run.inertia, 0.0)[:, None]
        for x, f in zip(run.positions_A, forces, strict=True):
            atoms_of = Atoms(run.numbers, x, cell=run.cell_A, pbc=run.cell_A is not None)
            atoms_of.set_array("teacher_forces", f)
            # the forces on held atoms are not stored
            atoms_of.set_array("force_weight", moves.astype(float))
            found.append(atoms_of)
    return found


def _model(frames: Sequence[Atoms], base: str | None) -> StudentModel:
    if base is not None:
        return read_student(find_student(base))[0].float()
    kinds = {int(z): s for a in frames for z, s in zip(a.numbers, a.symbols, strict=True)}
    config = StudentConfig(
        elements=tuple(kinds[z] for z in sorted(kinds)),
        channels=CHANNELS,
        messages=MESSAGES,
        hidden=HIDDEN,
    )
    check_config(config)
    return StudentModel(config).float()
