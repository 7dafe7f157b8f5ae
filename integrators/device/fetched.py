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
    return _split(joined(parts).cpu().numpy(), parts)


def joined(parts: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
    """Return tensors in one, float64, flat."""
    return torch.cat([part.double().flatten() for part in parts], out=out)


def _split(flat: np.ndarray, parts: Sequence[Tensor]) -> list[np.ndarray]:
    ends = np.cumsum([part.numel() for part in parts])[:-1]
    return [a.reshape(part.shape) for a, part in zip(np.split(flat, ends), parts, strict=True)]


class Results:
    """Tensors at fixed places, and where the host has them.

    Parameters
    ----------
    parts : sequence of Tensor
        On one device.
    """

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self._parts = tuple(parts)
        # and their sum, which is finite if all are
        size = sum(part.numel() for part in parts) + 1
        self._joined = parts[0].new_zeros(size, dtype=torch.float64)
        self._next, self._hosts = 0, [_Host(self._joined) for _ in range(2)]

    def join(self) -> None:
        """Have all of them in one place of the device; waits for nothing."""
        joined(self._parts, self._joined[:-1])
        torch.sum(self._joined[:-1], 0, out=self._joined[-1])

    def send(self) -> int:
        """Have what was joined sent to the host; waits for nothing.

        Returns
        -------
        int
            What to get it by, before the next but one is sent.
        """
        sent, self._next = self._next, 1 - self._next
        self._hosts[sent].send(self._joined)
        return sent

    def get(self, sent: int) -> tuple[list[np.ndarray], bool]:
        """Wait for what was sent; views of it, float64, and whether all is finite."""
        flat = self._hosts[sent].get()
        return _split(flat[:-1], self._parts), bool(np.isfinite(flat[-1]))


class _Host:
    """Memory that a GPU writes to by itself."""

    def __init__(self, like: Tensor) -> None:
        on_gpu = like.device.type == "cuda"
        self._all = torch.empty(like.shape, dtype=like.dtype, pin_memory=on_gpu)
        self._there = torch.cuda.Event() if on_gpu else None

    def send(self, tensor: Tensor) -> None:
        self._all.copy_(tensor, non_blocking=True)
        if self._there is not None:
            # torch would take that of its current device, which may be another
            self._there.record(torch.cuda.current_stream(tensor.device))

    def get(self) -> np.ndarray:
        if self._there is not None:
            self._there.synchronize()
        return self._all.numpy()


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
