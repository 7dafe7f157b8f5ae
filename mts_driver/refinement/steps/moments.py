"""Steps downhill along noisy gradients: Adam, with all covariances where parameters are few.

Parameters of a physical model go together: a softer and larger atom looks much like a harder and
smaller one. Gradients of losses from trajectories are then long, and mostly noise, across a valley,
and short along it. Adam (Kingma and Ba, arXiv 1412.6980) divides each by its own root mean square
and hardly moves along; divided by the root of the whole matrix of second moments, every direction
moves as far as its signal stands out of its noise.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MEMORY = (0.8, 0.95)
"""Of the mean and of the second moments, a step. Gradients fall by orders of magnitude in the first
ten steps; a longer memory would go on dividing by what they were."""
FEW = 64
"""Numbers up to which second moments are a whole matrix."""
_TINY = 1e-30


class Moments:
    """Moments of gradients, and the steps that follow from them.

    Parameters
    ----------
    numbers : int
        How many numbers are fitted, in all.
    """

    def __init__(self, numbers: int) -> None:
        self._whole = numbers <= FEW
        self._taken = 0
        self._mean = torch.zeros(numbers, dtype=torch.float64)
        shape = (numbers, numbers) if self._whole else (numbers,)
        self._second = torch.zeros(shape, dtype=torch.float64)

    def step(self, gradient: Tensor) -> Tensor:
        """Take a gradient (P,) into account; return the step (P,), of about one in length.

        A parameter that has a length of its own is to be multiplied by it in both.
        """
        self._taken += 1
        mean, second = MEMORY
        now = torch.outer(gradient, gradient) if self._whole else gradient.square()
        self._mean = mean * self._mean + (1.0 - mean) * gradient
        self._second = second * self._second + (1.0 - second) * now
        along = self._mean / (1.0 - mean**self._taken)
        spread = self._second / (1.0 - second**self._taken)
        if not self._whole:
            return -along / (spread + _TINY).sqrt()
        # scaled to a diagonal of one; covariances of few gradients are not to be trusted
        scale = (spread.diagonal() + _TINY).sqrt()
        values, vectors = torch.linalg.eigh(spread / torch.outer(scale, scale))
        root = (values.clamp(min=0.0) + 1.0 / self._taken**2).sqrt()
        step: Tensor = vectors @ ((vectors.T @ (along / scale)) / root)
        return -step

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        return {"taken": self._taken, "mean": self._mean, "second": self._second}

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        """Go on from what another object has seen."""
        self._taken, self._mean, self._second = kept["taken"], kept["mean"], kept["second"]
