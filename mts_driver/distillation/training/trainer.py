"""Training of a student on labelled frames, within a budget, resumable to the last bit."""

import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from mts_driver.distillation.labels.kinds import PLAIN, Kind
from mts_driver.distillation.labels.label_file import LabelFile
from mts_driver.distillation.training.budget import TrainingBudget
from mts_driver.distillation.training.dataset import (
    Graph,
    StiffPair,
    check_frames,
    normalise,
    stiff_pairs,
)
from mts_driver.distillation.training.loss import STIFFNESS_WEIGHT, loss
from mts_driver.errors import UserError
from mts_driver.potentials.student.model import StudentConfig, StudentModel
from mts_driver.structures.solutes import solute_weights
from mts_driver.tensor_files import load_tensors, save_tensors

LEARNING_RATE = 4e-3
FINE_TUNING_RATE = 1.5e-3
EMA_DECAY = 0.998
DAMPING = 0.1
"""Decay of the fastest harmonic, per unit of learning rate and step; the others' with n²."""
ATOMS_A_BATCH, ATOMS_IN_PAIRS = 400, 400
"""Atoms of plain frames and of stiff pairs that a step sees, about."""
SAVE_EVERY_S = 20.0
CHECKS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""When the student is judged by its drift, as shares of the budget."""
DRIFT_NOISE_MEV_ATOM_PS = 0.3
"""A drift must be worse than the best by this, twice running, for training to end early."""

Judge = Callable[[StudentModel], float]


@dataclass(frozen=True)
class TrainingSet:
    """Graphs of all training frames and pairs."""

    frames: list[Graph]
    pairs: list[StiffPair]
    force_rms: float

    @classmethod
    def from_labels(
        cls,
        labels: LabelFile,
        config: StudentConfig,
        *,
        without: Sequence[str] = (),
        raise_solutes: bool = False,
    ) -> "TrainingSet":
        """Take what is marked as training data, but for the kinds ``without``.

        ``raise_solutes`` gives the atoms of solutes the weights of `solute_weights`.
        """
        kinds = [kind for kind in PLAIN if kind not in without]
        chosen = [
            a for a in labels.frames if a.info["split"] == "train" and a.info["kind"] in kinds
        ]
        check_frames(chosen, config)
        stiff = [] if Kind.STIFF in without else labels.of(Kind.STIFF)
        if raise_solutes:
            chosen, stiff = _with_solutes_raised(chosen), _with_solutes_raised(stiff)
        return cls(
            [Graph.of(atoms, config) for atoms in chosen],
            stiff_pairs(stiff, config),
            _force_rms(labels.of(Kind.MD) or chosen),
        )


class Trainer:
    """Adam with a cosine schedule over its budget and an average over the last weights.

    Parameters
    ----------
    model : StudentModel
        Trained in place.
    data : TrainingSet
        What to fit.
    checkpoint : Path
        Written every 20 s; an existing one is continued.
    budget : TrainingBudget
        Time or updates, earlier runs counted in.
    seed : int
        Of the order of batches.
    fine_tuning : bool
        Whether the model has been trained before: it keeps the scaling of its inputs, and learns
        in smaller steps.
    stiffness_weight : float
        Of the second part of the loss.
    """

    def __init__(
        self,
        model: StudentModel,
        data: TrainingSet,
        *,
        checkpoint: Path,
        budget: TrainingBudget,
        seed: int,
        fine_tuning: bool = False,
        stiffness_weight: float = STIFFNESS_WEIGHT,
    ) -> None:
        self.model, self.data, self.checkpoint = model, data, checkpoint
        self.budget, self.stiffness_weight = budget, stiffness_weight
        self.rate = FINE_TUNING_RATE if fine_tuning else LEARNING_RATE
        self.elapsed_s, self.compile_s, self.steps = 0.0, 0.0, 0
        self.judged: list[tuple[float, float]] = []
        self._rng = np.random.default_rng(seed)
        self._optimizer = torch.optim.Adam(
            [p for p in model.parameters() if p.requires_grad], lr=self.rate
        )
        self._frames_a_batch = _how_many(ATOMS_A_BATCH, [len(g.forces) for g in data.frames])
        self._pairs_a_batch = _how_many(
            ATOMS_IN_PAIRS, [2 * len(p.plus.forces) for p in data.pairs]
        )
        if not checkpoint.exists() and not fine_tuning:
            normalise(model, data.frames)
        self.average = copy.deepcopy(model)
        self._best = copy.deepcopy(model)
        if checkpoint.exists():
            self._load()

    @property
    def spent(self) -> float:
        """How much of the budget is used."""
        return self.budget.spent(self.elapsed_s, self.steps)

    @property
    def share(self) -> float:
        """The same as a share, 0 to 1."""
        return self.budget.share(self.elapsed_s, self.steps)

    def run(
        self, report: Callable[[float, float, float], None], judge: Judge | None = None
    ) -> StudentModel:
        """Train until the budget is spent; return the averaged model.

        Parameters
        ----------
        report : callable
            ``report(spent, force_loss, stiffness_loss)`` after every step.
        judge : callable, optional
            What matters in the end, the smaller the better: asked now and then in the second half.
            The best model is returned, and training ends when two answers running are worse.
        """
        started = time.monotonic()
        self._compile()
        self.compile_s = time.monotonic() - started
        started = time.monotonic() - self.elapsed_s
        saved = self.elapsed_s
        while self.share < 1.0 and not self._has_worsened():
            force_part, stiff_part = self._step()
            self.elapsed_s = time.monotonic() - started
            report(self.spent, float(force_part.detach()), float(stiff_part.detach()))
            if judge is not None:
                self._judge_if_due(judge)
            if self.elapsed_s - saved > SAVE_EVERY_S:
                self._save()
                saved = self.elapsed_s
        self._save()
        return self._best if self.judged else self.average

    def _compile(self) -> None:
        """Take the first gradients on a machine, which may be a minute; they change nothing."""
        drawn = copy.deepcopy(self._rng.bit_generator.state)
        self._gradients()
        self._rng.bit_generator.state = drawn

    def _judge_if_due(self, judge: Judge) -> None:
        if len(self.judged) >= len(CHECKS) or self.share < CHECKS[len(self.judged)]:
            return
        share, value = self.share, judge(self.average)
        # the later of two that are equally good has the smaller error
        if value <= min([v for _, v in self.judged], default=math.inf) + DRIFT_NOISE_MEV_ATOM_PS:
            self._best = copy.deepcopy(self.average)
        self.judged.append((share, value))

    def _has_worsened(self) -> bool:
        values = [v for _, v in self.judged]
        return len(values) >= 2 and min(values[-2:]) > min(values) + DRIFT_NOISE_MEV_ATOM_PS

    def _step(self) -> tuple[torch.Tensor, torch.Tensor]:
        for group in self._optimizer.param_groups:
            # a short warm-up, then half a cosine down to a hundredth
            warm = min(1.0, (self.steps + 1) / 50)
            group["lr"] = self.rate * warm * (0.01 + 0.495 * (1 + math.cos(math.pi * self.share)))
        force_part, stiff_part = self._gradients()
        self._optimizer.step()
        self._damp(group["lr"])
        self.steps += 1
        decay = min(EMA_DECAY, self.steps / (self.steps + 10))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
        return force_part, stiff_part

    def _damp(self, rate: float) -> None:
        """Let the fast harmonics of pairs of elements that no data asks for fade."""
        with torch.no_grad():
            for name, weights in self.model.named_parameters():
                if name in ("radial", "radial2"):
                    share = torch.arange(1, weights.shape[2] + 1) / weights.shape[2]
                    weights.mul_(1.0 - rate * DAMPING * share[:, None].to(weights) ** 2)

    def _gradients(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of the loss of a random batch; its two parts."""
        frames = [self.data.frames[k] for k in self._draw(self.data.frames, self._frames_a_batch)]
        pairs = [self.data.pairs[k] for k in self._draw(self.data.pairs, self._pairs_a_batch)]
        force_part, stiff_part = loss(
            self.model,
            frames,
            pairs,
            force_rms=self.data.force_rms,
            stiffness_weight=self.stiffness_weight,
        )
        self._optimizer.zero_grad()
        (force_part + stiff_part).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        return force_part, stiff_part

    def _draw(self, available: Sequence[object], count: int) -> np.ndarray:
        return self._rng.integers(len(available), size=min(count, len(available)))

    def _save(self) -> None:
        save_tensors(
            self.checkpoint,
            {
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "best": self._best.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "elapsed_s": self.elapsed_s,
                "steps": self.steps,
                "judged": self.judged,
                # as text: the state holds integers of 128 bits
                "batches": json.dumps(self._rng.bit_generator.state),
            },
        )

    def _load(self) -> None:
        remedy = "give another --work folder, or remove it to train anew."
        stored = load_tensors(self.checkpoint, remedy=remedy)
        try:
            self.model.load_state_dict(stored["model"])
            self.average.load_state_dict(stored["average"])
            self._best.load_state_dict(stored["best"])
            self._optimizer.load_state_dict(stored["optimizer"])
            self.elapsed_s, self.steps = stored["elapsed_s"], stored["steps"]
            if "batches" in stored:  # versions before this one did not keep it
                self._rng.bit_generator.state = json.loads(stored["batches"])
            self.judged = [(float(share), float(value)) for share, value in stored["judged"]]
        except (RuntimeError, KeyError, ValueError) as error:
            raise UserError(
                f"'{self.checkpoint}' is the training of a student of another size or kind than "
                f"this command asks for: {remedy}"
            ) from error


def _with_solutes_raised(frames: Sequence[Atoms]) -> list[Atoms]:
    """Return copies with weights; fragments have weights of their own and stay as they are."""
    # bonds are those of a system's first frame: later ones may be torn
    first = {str(f.info["system"]): f for f in reversed(frames)}
    weights = {system: solute_weights(f) for system, f in first.items()}
    out = []
    for frame in frames:
        own = weights[str(frame.info["system"])]
        if not frame.has("force_weight") and len(own) == len(frame):
            frame = frame.copy()
            frame.set_array("force_weight", own)
        out.append(frame)
    return out


def _how_many(atoms: int, sizes: Sequence[int]) -> int:
    """How many frames of these sizes hold about so many atoms: at least one, at most 32."""
    return min(32, max(1, round(atoms / np.mean(sizes)))) if sizes else 0


def _force_rms(frames: Sequence[Atoms]) -> float:
    forces = np.concatenate([a.get_array("teacher_forces") for a in frames])
    return float(np.sqrt((forces**2).mean()))
