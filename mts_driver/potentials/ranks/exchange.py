"""What processes tell each other that evaluate one structure together, also through autograd.

Each has the rows of its own atoms. The energy of the whole is the sum of what the processes have of
it, so that a derivative is the sum of theirs: what gathers rows on the way to the energy scatters
sums on the way back, and the other way round.
"""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class Ranks(Protocol):
    """The processes that evaluate one structure together; every method is called by all of them."""

    rank: int
    size: int

    def add_up(self, array: np.ndarray) -> None:
        """Replace an array by its sum over all ranks, in place."""

    def gather(self, rows: np.ndarray, counts: tuple[int, ...]) -> np.ndarray:
        """Return the rows of all ranks behind one another; ``counts`` are theirs."""

    def scatter_sum(self, rows: np.ndarray, counts: tuple[int, ...]) -> np.ndarray:
        """Return this rank's rows of the sum over all ranks of arrays of all rows."""


class Share:
    """Who has which atoms, and what of all of them goes to whom.

    Parameters
    ----------
    ranks : Ranks
        Who shares.
    order : int array, shape (N,)
        All atoms, those of the first rank first.
    counts : tuple of int
        How many atoms each rank has.
    """

    def __init__(self, ranks: Ranks, order: np.ndarray, counts: tuple[int, ...]) -> None:
        self.ranks, self.counts = ranks, counts
        start = sum(counts[: ranks.rank])
        self.own = order[start : start + counts[ranks.rank]]
        """Numbers of this rank's atoms."""
        self.order = order
        self.place = np.argsort(order)
        """Where every atom is in the order."""

    def gather(self, rows: Tensor) -> Tensor:
        """From the rows (n, ...) of this rank's atoms to those (N, ...) of all, in the order."""
        return _Gather.apply(rows, self)

    def scatter_sum(self, rows: Tensor) -> Tensor:
        """From rows (N, ...) in the order, to which all ranks add, to those of this rank."""
        return _ScatterSum.apply(rows, self)


def _gathered(rows: Tensor, share: Share) -> Tensor:
    array = rows.detach().contiguous().numpy()
    return torch.from_numpy(share.ranks.gather(array, share.counts))


def _scattered(rows: Tensor, share: Share) -> Tensor:
    array = rows.detach().contiguous().numpy()
    return torch.from_numpy(share.ranks.scatter_sum(array, share.counts))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, share: Share) -> Tensor:
        ctx.share = share
        return _gathered(rows, share)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _scattered(grad, ctx.share), None


class _ScatterSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, share: Share) -> Tensor:
        ctx.share = share
        return _scattered(rows, share)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _gathered(grad, ctx.share), None
