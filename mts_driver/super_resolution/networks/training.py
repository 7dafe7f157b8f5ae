"""Training of a network on gaps whose frames are known; goes on after a kill."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mts_driver.distillation.training.budget import TrainingBudget
from mts_driver.errors import UserError
from mts_driver.files import first_difference
from mts_driver.progress import Progress
from mts_driver.super_resolution.frames import Frames, gaps_from
from mts_driver.super_resolution.networks.fill import NetworkFill, scales_of
from mts_driver.super_resolution.networks.recurrences import network
from mts_driver.tensor_files import load_tensors, save_tensors

SAVE_EVERY_S = 20.0
LONGEST_GRADIENT = 1.0
SEEN_FOR_SCALES = 2000


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a network is trained.

    Attributes
    ----------
    network : str
        Of `mts_driver.super_resolution.networks.recurrences.NETWORKS`.
    both_ways : bool
        Whether it fills from both ends.
    stride, window : int
        Frames from one stored frame to the next, and frames that are known at each end.
    hidden, batch : int
        Width of the network, and gaps an update.
    learning_rate : float
        Of Adam at the start; half a cosine brings it to a hundredth.
    test_share : float
        The last part of each trajectory, which training does not see.
    seed : int
        Of weights and batches.
    """

    network: str = "lstm"
    both_ways: bool = True
    stride: int
    window: int = 1
    hidden: int = 128
    batch: int = 64
    learning_rate: float = 3e-3
    test_share: float = 0.2
    seed: int = 1

    def __post_init__(self) -> None:
        for name, least in (("stride", 2), ("window", 1), ("hidden", 1), ("batch", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)}: give {least} or more.")
        if not 0 < self.learning_rate < 1:
            raise UserError(f"learning_rate={self.learning_rate:g}: give a number from 0 to 1.")
        if not 0 < self.test_share < 1:
            raise UserError(f"test_share={self.test_share:g}: give a number from 0 to 1.")

    def parts(self, frames: Frames) -> tuple[Frames, Frames]:
        """Return the part of a trajectory that is trained on, and the later one that is not.

        Raises
        ------
        UserError
            If one of them holds no gap.
        """
        learn, test = frames.split(self.test_share)
        if min(len(learn), len(test)) < self.stride + 2 * self.window - 1:
            raise UserError(
                f"a trajectory of {len(frames)} frames has no gap of {self.stride} to train on and "
                f"another to test with (test_share={self.test_share:g}): give a longer one."
            )
        return learn, test


def train_network(
    runs: Sequence[Frames],
    settings: TrainingSettings,
    budget: TrainingBudget,
    *,
    checkpoint: Path,
    report: Progress = lambda *_: None,
) -> tuple[NetworkFill, dict[str, Any]]:
    """Train on the first parts of trajectories of one molecule.

    The loss is the mean absolute error of coordinates within gaps, in Å, as Winkler et al. have it.

    Parameters
    ----------
    runs : sequence of Frames
        With velocities; not periodic.
    checkpoint : Path
        Written every 20 s; one that is there is continued.

    Returns
    -------
    NetworkFill, dict
        And what it cost: updates, seconds.

    Raises
    ------
    UserError
        If trajectories are of different molecules or intervals, periodic, too short or without
        velocities, or the checkpoint is of another training.
    """
    _require_one_molecule(runs)
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    learn = [settings.parts(frames)[0] for frames in runs]
    fill = _new(learn, settings, rng)
    weights = fill.network.parameters()
    optimiser = torch.optim.Adam(weights, lr=settings.learning_rate)
    kept = _Kept(checkpoint, _identity(runs, settings))
    updates, elapsed_s = kept.load(fill, optimiser, rng)
    began, saved = time.monotonic() - elapsed_s, elapsed_s
    while (share := budget.share(elapsed_s, updates)) < 1.0:
        for group in optimiser.param_groups:
            cosine = 0.01 + 0.495 * (1.0 + math.cos(math.pi * share))
            group["lr"] = settings.learning_rate * cosine
        loss = _loss(fill, learn, settings, rng)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(fill.network.parameters(), LONGEST_GRADIENT)
        optimiser.step()
        updates, elapsed_s = updates + 1, time.monotonic() - began
        report(
            f"training, update {updates}, loss {float(loss.detach()):.2e} Å",
            budget.spent(elapsed_s, updates),
            budget.total,
        )
        if elapsed_s - saved > SAVE_EVERY_S:
            kept.save(fill, optimiser, rng, updates, elapsed_s)
            saved = elapsed_s
    kept.save(fill, optimiser, rng, updates, elapsed_s)
    return fill, {"updates": updates, "training_s": elapsed_s}


def _require_one_molecule(runs: Sequence[Frames]) -> None:
    first = runs[0]
    for frames in runs:
        if frames.cell_A is not None:
            raise UserError(
                "a network learns one molecule, and this trajectory is periodic: use a student, "
                "which fills gaps of any system."
            )
        if not np.array_equal(frames.numbers, first.numbers):
            raise UserError("the trajectories are of different atoms, or in another order.")
        if not np.isclose(frames.timestep_fs, first.timestep_fs, rtol=1e-6):
            raise UserError(
                f"the trajectories have frames every {first.timestep_fs:g} fs and every "
                f"{frames.timestep_fs:g} fs: give those of one interval."
            )
        if not np.isfinite(frames.inertia).all():
            raise UserError("a network learns a free molecule, and atoms of this one are held.")
        if frames.velocities_A_fs is None:
            raise UserError("a network needs velocities, and the frames have none.")


def _new(
    learn: Sequence[Frames], settings: TrainingSettings, rng: np.random.Generator
) -> NetworkFill:
    first = learn[0]
    masses = first.inertia
    x = first.positions_A[0]
    reference = x - (masses[:, None] * x).sum(0) / masses.sum()
    starts = rng.integers(0, len(first) - settings.stride, SEEN_FOR_SCALES)
    return NetworkFill(
        network(settings.network, 6 * len(first.numbers), settings.hidden),
        scales_of(first, starts, settings.stride, reference),
        first.numbers,
        masses,
        reference,
        first.timestep_fs,
        settings.stride,
        settings.window,
        settings.both_ways,
    )


def _loss(
    fill: NetworkFill, learn: Sequence[Frames], settings: TrainingSettings, rng: np.random.Generator
) -> torch.Tensor:
    frames = learn[int(rng.integers(len(learn)))]
    least, most = settings.window - 1, len(frames) - settings.stride - settings.window + 1
    starts = rng.integers(least, most, settings.batch)
    gaps, truth = gaps_from(frames, starts, settings.stride, settings.window)
    found, origin = fill.positions(gaps)
    return (found - torch.from_numpy(truth - origin).float()).abs().mean()


def _identity(runs: Sequence[Frames], settings: TrainingSettings) -> dict[str, Any]:
    digest = sha256(b"".join(f.positions_A[[0, -1]].tobytes() for f in runs)).hexdigest()
    return {**asdict(settings), "frames": [len(f) for f in runs], "trajectories": digest}


class _Kept:
    """The file that a training goes on from."""

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path, self._identity = path, identity

    def save(
        self,
        fill: NetworkFill,
        optimiser: torch.optim.Optimizer,
        rng: np.random.Generator,
        updates: int,
        elapsed_s: float,
    ) -> None:
        save_tensors(
            self.path,
            {
                "identity": self._identity,
                "network": fill.network.state_dict(),
                "optimiser": optimiser.state_dict(),
                "batches": json.dumps(rng.bit_generator.state),
                "updates": updates,
                "elapsed_s": elapsed_s,
            },
        )

    def load(
        self, fill: NetworkFill, optimiser: torch.optim.Optimizer, rng: np.random.Generator
    ) -> tuple[int, float]:
        if not self.path.exists():
            return 0, 0.0
        remedy = "give another --output, or --force to train anew."
        found = load_tensors(self.path, remedy=remedy)
        before = found.get("identity")
        if not isinstance(before, dict):
            raise UserError(f"'{self.path}' is no training of this version: {remedy}")
        if (name := first_difference(before, self._identity)) is not None:
            raise UserError(
                f"'{self.path}' was made with {name}={before.get(name)!r}, not "
                f"{self._identity.get(name)!r}: {remedy}"
            )
        fill.network.load_state_dict(found["network"])
        optimiser.load_state_dict(found["optimiser"])
        rng.bit_generator.state = json.loads(found["batches"])
        return int(found["updates"]), float(found["elapsed_s"])
