"""What comes back to the host: in one piece, and finite."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from integrators.compiled_loop import Found, Taken
from integrators.splitting import FAST


class StepLost(ValueError):
    """A step that has no end: the trajectory blew up."""


def in_one_piece(parts: Sequence[Tensor]) -> list[np.ndarray]:
    """Bring tensors to the host, float64, and wait for the device once."""
    flat = torch.cat([part.double().flatten() for part in parts]).cpu().numpy()
    ends = np.cumsum([part.numel() for part in parts])[:-1]
    return [a.reshape(part.shape) for a, part in zip(np.split(flat, ends), parts, strict=True)]


def require_finite(taken: Taken, teacher: Found | None) -> None:
    """Refuse to hand on what would spoil a checkpoint."""
    for name, found in (("student", taken.evaluations[FAST]), ("teacher", teacher)):
        if found is not None and not np.isfinite(found[0].sum() + found[1].sum()):
            raise StepLost(
                f"the {name} returned numbers that are not finite: atoms overlap, or the structure "
                "lies outside what it knows"
            )
    if not np.isfinite(taken.momenta.sum() + taken.extra.sum()):
        raise StepLost("momenta are not finite: the trajectory blew up")
