"""Updates whose length is relative to the sizes of parameters."""

import statistics
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mts_driver.refinement.problem import Estimate, Problem
from mts_driver.refinement.steps.moments import Moments


class ByParameters:
    """Steps downhill along `Moments`, each number in units of its parameter's size.

    Parameters
    ----------
    parameters : mapping of str to Tensor
        As they are at the start: the size of each is its root mean square.
    longest_gradient : float
        Bound on the norm of a gradient, in medians of those before.
    """

    def __init__(self, parameters: Mapping[str, Tensor], longest_gradient: float) -> None:
        self._longest = longest_gradient
        self._sizes = {name: size_of(p) for name, p in parameters.items()}
        self._moments = Moments(sum(p.numel() for p in parameters.values()))
        self._norms: list[float] = []

    def __call__(
        self, problem: Problem, found: Estimate, rate: float
    ) -> tuple[dict[str, Tensor], float]:
        """See `Steps`."""
        scaled = [g.double().flatten() * self._sizes[n] for n, g in found.gradients.items()]
        whole = torch.cat(scaled)
        norm = float(whole.norm())
        most = self._longest * statistics.median(self._norms) if self._norms else norm
        self._norms.append(norm)
        steps = self._moments.step(min(1.0, most / norm) * whole if norm else whole)
        parts = steps.split([len(part) for part in scaled])
        moves = {
            name: (rate * self._sizes[name] * part).view_as(g)
            for part, (name, g) in zip(parts, found.gradients.items(), strict=True)
        }
        return moves, norm

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        return {
            "sizes": self._sizes,
            "norms": self._norms,
            "moments": self._moments.state_dict(),
        }

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        """Go on from what another object has seen."""
        self._sizes, self._norms = kept["sizes"], list(kept["norms"])
        self._moments.load_state_dict(kept["moments"])


def size_of(parameter: Tensor) -> float:
    """Root mean square of a parameter's numbers, 1 where all are 0."""
    return parameter.detach().square().mean().sqrt().item() or 1.0
