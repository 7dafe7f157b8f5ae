"""Gaps filled by a network that steps in from one end, or from both."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mts_driver.errors import UserError
from mts_driver.super_resolution.frames import Frames, Gaps
from mts_driver.super_resolution.networks.body_frame import BodyFrames
from mts_driver.super_resolution.networks.recurrences import Recurrence


@dataclass(frozen=True, eq=False)
class Scales:
    """What is large for a molecule, each (6N,): positions, then velocities.

    Attributes
    ----------
    mean, spread : Tensor
        Of states, Å and Å/fs.
    drift, change : Tensor
        Mean and spread of what a time step adds to them.
    """

    mean: Tensor
    spread: Tensor
    drift: Tensor
    change: Tensor


@dataclass(frozen=True, eq=False)
class NetworkFill:
    """A network with all that it needs to fill gaps.

    Attributes
    ----------
    network : Recurrence
        Takes a time step.
    scales : Scales
        Of its molecule.
    numbers, masses, reference : array, shape (N,), (N,), (N, 3)
        Of the molecule; see `BodyFrames`.
    timestep_fs, stride, window : float, int, int
        Between frames within a gap, of how many steps a gap is, and how many frames are known at
        each of its ends.
    both_ways : bool
        Whether the network steps in from the right end, too, with time turned round.
    """

    network: Recurrence
    scales: Scales
    numbers: np.ndarray
    masses: np.ndarray
    reference: np.ndarray
    timestep_fs: float
    stride: int
    window: int
    both_ways: bool

    def __call__(self, gaps: Gaps) -> np.ndarray:
        """Fill gaps: (stride - 1, G, N, 3), Å.

        Raises
        ------
        UserError
            If velocities or frames of the window are not known, or gaps have another length.
        """
        self._require(gaps)
        with torch.no_grad():
            from_left, origin = self.positions(gaps)
        return from_left.double().numpy() + origin

    def positions(self, gaps: Gaps) -> tuple[Tensor, np.ndarray]:
        """Return the same in single precision, from the left end's centre of mass, and that."""
        states, frames = self._states(gaps)
        both = [states]
        ways = [frames]
        if self.both_ways:
            back = self._states(gaps.turned())
            both, ways = [states, back[0]], [frames, back[1]]
        found = self._roll(torch.cat(both, 1)).chunk(len(ways), 1)
        times = self.timestep_fs * np.arange(1, self.stride)
        origin = frames.origin
        placed = []
        for x, way in zip(found, ways, strict=True):
            turn = torch.from_numpy(way.turn).float()
            place = torch.from_numpy(way.places(times) - origin).float()
            placed.append(x @ turn.transpose(-2, -1) + place)
        if len(placed) == 1:
            return placed[0], origin
        share = (torch.arange(1, self.stride) / self.stride).reshape(-1, 1, 1, 1)
        return (1.0 - share) * placed[0] + share * placed[1].flip(0), origin

    def _require(self, gaps: Gaps) -> None:
        gaps.known(2, "a network")
        if gaps.window < self.window:
            raise UserError(
                f"this model wants {self.window} frames of {self.timestep_fs:g} fs at each end of "
                f"a gap, and {gaps.window} are known: train one with --window {gaps.window}."
            )
        want_fs = self.stride * self.timestep_fs
        if not np.isclose(gaps.duration_fs, want_fs, rtol=1e-6):
            raise UserError(
                f"this model fills gaps of {want_fs:g} fs, the frames are {gaps.duration_fs:g} fs "
                "apart: train one for these."
            )

    def _states(self, gaps: Gaps) -> tuple[Tensor, BodyFrames]:
        """Return the window at the left end, (W, G, 6N), and its axes."""
        extra = gaps.window - self.window
        x, v = (
            np.concatenate([gaps.before[k][extra:], gaps.left[k][None]])
            if self.window > 1
            else gaps.left[k][None]
            for k in range(2)
        )
        frames = BodyFrames.of(x[-1], v[-1], self.masses, self.reference)
        times = self.timestep_fs * np.arange(1 - self.window, 1)
        own = np.concatenate(frames.inwards(x, v, times), axis=-1)
        return _flat(own), frames

    def _roll(self, states: Tensor) -> Tensor:
        """Return positions (stride - 1, G, N, 3) behind a window (W, G, 6N)."""
        scales, memory, steps = self.scales, None, []
        now = states[0]
        for k in range(1, self.window + self.stride - 1):
            change, memory = self.network((now - scales.mean) / scales.spread, memory)
            if k < self.window:
                now = states[k]
            else:
                now = now + scales.drift + scales.change * change
                steps.append(now)
        found = torch.stack(steps)
        return found.unflatten(-1, (2, len(self.numbers), 3))[..., 0, :, :]


def _flat(states: np.ndarray) -> Tensor:
    """Positions and velocities side by side, (T, G, N, 6), as features (T, G, 6N)."""
    n = states.shape[-2]
    x = states.reshape(*states.shape[:2], n, 2, 3).swapaxes(-3, -2)
    return torch.from_numpy(x.reshape(*states.shape[:2], 6 * n)).float()


def scales_of(frames: Frames, starts: np.ndarray, stride: int, reference: np.ndarray) -> Scales:
    """Return what is large in the gaps from some frames on, seen from their left ends."""
    count = np.arange(stride + 1)
    x, v = (a[starts + count[:, None]] for a in frames.series(2))
    axes = BodyFrames.of(x[0], v[0], frames.inertia, reference)
    states = _flat(np.concatenate(axes.inwards(x, v, frames.timestep_fs * count), -1))
    changes = states.diff(dim=0).flatten(0, 1)
    states = states.flatten(0, 1)
    # what never changes, as the place of a lone atom, keeps a spread above 0
    return Scales(
        states.mean(0),
        states.std(0).clamp_min(1e-6),
        changes.mean(0),
        changes.std(0).clamp_min(1e-9),
    )
