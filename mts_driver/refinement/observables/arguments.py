"""What observables take: arrays of any kind, and energies as functions."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Indices = Tensor | NDArray[np.integer] | Sequence[int] | Sequence[Sequence[int]]
Numbers = Tensor | NDArray[np.floating] | Sequence[float]
Energy = Callable[[Tensor, Tensor], Tensor]
"""``energy(positions (..., N, 3), cell (3, 3)) -> (...)``, Å and eV, with a graph to positions,
cell and the parameters: the method ``energy`` of a potential that is a torch module."""
