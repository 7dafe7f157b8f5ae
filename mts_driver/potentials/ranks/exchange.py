"""What processes tell each other that evaluate one structure together, also through autograd.

Each has rows of its own atoms, and of those of others that are near them: its halo. The energy of
the whole is the sum of what the processes have of it, so that a derivative is the sum of theirs:
what gathers rows on the way to the energy scatters sums on the way back, and the other way round.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]
Map = Callable[[np.ndarray], np.ndarray]


class Ranks(Protocol):
    """The processes that evaluate one structure together; every method is called by all of them."""

    rank: int
    size: int

    def add_up(self, array: np.ndarray) -> None:
        """Replace an array by its sum over all ranks, in place."""

    def swap(self, rows: np.ndarray, sent: Ints, received: Ints) -> np.ndarray:
        """Send so many rows to each rank, the first to the first; return those of all for this."""


def sum_over_ranks(ranks: Ranks, *arrays: np.ndarray) -> list[np.ndarray]:
    """Return the sums over all ranks of float64 arrays, in one exchange."""
    flat = np.concatenate([array.ravel() for array in arrays])
    ranks.add_up(flat)
    cuts = np.cumsum([array.size for array in arrays])[:-1]
    parts = np.split(flat, cuts)
    return [part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True)]


class Halo:
    """Atoms of other ranks that this one needs rows of, and its own that others need.

    Parameters
    ----------
    ranks : Ranks
        Who shares.
    own : int array, shape (n,)
        Numbers of this rank's atoms, ascending.
    wanted : int array, shape (h,)
        Numbers of the others' atoms.
    owner : int array, shape (N,)
        The rank of every atom.
    """

    def __init__(self, ranks: Ranks, own: Ints, wanted: Ints, owner: np.ndarray) -> None:
        self._ranks, self.own_count = ranks, len(own)
        self._order = np.argsort(owner[wanted], kind="stable")
        one_each = np.ones(ranks.size, np.int64)
        self._received = np.bincount(owner[wanted], minlength=ranks.size)
        self._sent = ranks.swap(self._received, one_each, one_each)
        asked = ranks.swap(wanted[self._order], self._received, self._sent)
        self._rows_sent = np.searchsorted(own, asked)

    @property
    def rows_sent(self) -> int:
        """How many rows go to others."""
        return len(self._rows_sent)

    @property
    def peers(self) -> int:
        """How many ranks there are to tell."""
        return int(np.count_nonzero(self._sent))

    def gathered(self, rows: np.ndarray) -> np.ndarray:
        """From the rows (n, ...) of this rank's atoms to these and those (h, ...) of its halo."""
        whole = np.empty((len(rows) + len(self._order), *rows.shape[1:]), rows.dtype)
        whole[: len(rows)] = rows
        found = self._ranks.swap(rows[self._rows_sent], self._sent, self._received)
        whole[len(rows) + self._order] = found
        return whole

    def scattered_sum(self, rows: np.ndarray) -> np.ndarray:
        """From rows (n + h, ...), to which all ranks add, to the sums (n, ...) of this rank's."""
        own = rows[: self.own_count].copy()
        theirs = rows[self.own_count + self._order]
        found = self._ranks.swap(theirs, self._received, self._sent)
        # an atom may be in the halos of several ranks; torch adds up fast, and in this order
        rows_sent, added = torch.from_numpy(self._rows_sent), torch.from_numpy(found)
        torch.from_numpy(own).index_add_(0, rows_sent, added)
        return own

    def gather(self, rows: Tensor) -> Tensor:
        """Do as `gathered`, through autograd."""
        return _Linear.apply(rows, self.gathered, self.scattered_sum)

    def scatter_sum(self, rows: Tensor) -> Tensor:
        """Do as `scattered_sum`, through autograd."""
        return _Linear.apply(rows, self.scattered_sum, self.gathered)

    def total(self, rows: Tensor) -> Tensor:
        """Sum over all ranks, through autograd."""
        return _Linear.apply(rows, self._added_up, self._added_up)

    def _added_up(self, rows: np.ndarray) -> np.ndarray:
        total = rows.copy()
        self._ranks.add_up(total)
        return total


class _Linear(torch.autograd.Function):
    """A linear map of arrays, and its transpose on the way back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, there: Map, back: Map) -> Tensor:
        ctx.back = back
        return _apply(there, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _apply(ctx.back, grad), None, None


def _apply(function: Map, rows: Tensor) -> Tensor:
    # ranks tell each other through the memory of the host
    return torch.from_numpy(function(rows.detach().contiguous().cpu().numpy())).to(rows.device)
