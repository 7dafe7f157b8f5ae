"""Training of a student on labelled frames, for a given time, resumable."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mts_driver.distillation.dataset import Graph, StiffPair, collate, graph_of, stiff_pairs
from mts_driver.distillation.labels import LabelFile
from mts_driver.distillation.loss import loss
from mts_driver.potentials.student import StudentConfig, StudentModel

LEARNING_RATE = 4e-3
EMA_DECAY = 0.998
FRAMES_A_BATCH = 2
PAIRS_A_BATCH = 1
SAVE_EVERY_S = 20.0
TRAINING_KINDS = ("equil", "md", "warm", "hot", "shaken", "contacts", "stretched")


@dataclass(frozen=True)
class TrainingSet:
    """Graphs of all training frames and pairs."""

    frames: list[Graph]
    pairs: list[StiffPair]
    force_rms: float

    @classmethod
    def from_labels(cls, labels: LabelFile, config: StudentConfig) -> "TrainingSet":
        """Take what is marked as training data; ``force_rms`` is that of the dynamics, eV/Å."""
        chosen = [
            atoms
            for kind in TRAINING_KINDS
            for atoms in labels.of(kind)
            if atoms.info["split"] == "train"
        ]
        forces = np.concatenate([a.get_array("teacher_forces") for a in labels.of("md")])
        return cls(
            [graph_of(atoms, config) for atoms in chosen],
            stiff_pairs(labels, "stiff", config),
            float(np.sqrt((forces**2).mean())),
        )


class Trainer:
    """Adam with a cosine schedule in elapsed time and an average over the last weights.

    Parameters
    ----------
    model : StudentModel
        Trained in place; new models get their inputs normalised first.
    data : TrainingSet
        What to fit.
    checkpoint : Path
        Written every 20 s; an existing one is continued.
    budget_s : float
        Training time, earlier runs counted in.
    seed : int
        Of the order of batches.
    """

    def __init__(
        self,
        model: StudentModel,
        data: TrainingSet,
        *,
        checkpoint: Path,
        budget_s: float,
        seed: int,
    ) -> None:
        self.model, self.data, self.checkpoint = model, data, checkpoint
        self.budget_s = budget_s
        self.elapsed_s, self.steps = 0.0, 0
        self._rng = np.random.default_rng(seed)
        self._optimizer = torch.optim.Adam(
            [p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE
        )
        if checkpoint.exists():
            self._load()
        else:
            normalise(model, data.frames)
            self.average = copy.deepcopy(model)

    def run(self, report: Callable[[float, float, float], None]) -> StudentModel:
        """Train until the budget is spent; return the averaged model.

        ``report(elapsed_s, force_loss, stiffness_loss)`` is called after every step.
        """
        started = time.monotonic() - self.elapsed_s
        saved = self.elapsed_s
        while self.elapsed_s < self.budget_s:
            force_part, stiff_part = self._step()
            self.elapsed_s = time.monotonic() - started
            report(self.elapsed_s, float(force_part.detach()), float(stiff_part.detach()))
            if self.elapsed_s - saved > SAVE_EVERY_S:
                self._save()
                saved = self.elapsed_s
        self._save()
        return self.average

    def _step(self) -> tuple[torch.Tensor, torch.Tensor]:
        share = min(1.0, self.elapsed_s / self.budget_s)
        for group in self._optimizer.param_groups:
            # a short warm-up, then half a cosine down to a hundredth
            warm = min(1.0, (self.steps + 1) / 50)
            group["lr"] = LEARNING_RATE * warm * (0.01 + 0.495 * (1 + math.cos(math.pi * share)))
        frames = [self.data.frames[k] for k in self._draw(len(self.data.frames), FRAMES_A_BATCH)]
        pairs = [self.data.pairs[k] for k in self._draw(len(self.data.pairs), PAIRS_A_BATCH)]
        force_part, stiff_part = loss(self.model, frames, pairs, force_rms=self.data.force_rms)
        self._optimizer.zero_grad()
        (force_part + stiff_part).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        self.steps += 1
        decay = min(EMA_DECAY, self.steps / (self.steps + 10))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
        return force_part, stiff_part

    def _draw(self, available: int, count: int) -> np.ndarray:
        return self._rng.integers(available, size=min(count, available))

    def _save(self) -> None:
        partial = self.checkpoint.with_suffix(".part")
        torch.save(
            {
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "elapsed_s": self.elapsed_s,
                "steps": self.steps,
            },
            partial,
        )
        partial.replace(self.checkpoint)

    def _load(self) -> None:
        stored = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(stored["model"])
        self.average = copy.deepcopy(self.model)
        self.average.load_state_dict(stored["average"])
        self._optimizer.load_state_dict(stored["optimizer"])
        self.elapsed_s, self.steps = stored["elapsed_s"], stored["steps"]


def normalise(model: StudentModel, frames: list[Graph]) -> None:
    """Set the input shift and scale of every element from up to 16 frames."""
    batch = collate(frames[:: max(1, len(frames) // 16)])
    with torch.no_grad():
        x = model.features(batch.kind, batch.neighbors, batch.vectors)
        for e in range(len(model.config.elements)):
            mine = x[batch.kind == e]
            model.shift[e] = mine.mean(0)
            model.scale[e] = 1.0 / mine.std(0).clamp_min(1e-3 * float(mine.std()))
