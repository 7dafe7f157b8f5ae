"""What users may give as an array: a tensor, a numpy array, or a list."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Indices = Tensor | NDArray[np.integer] | Sequence[int] | Sequence[Sequence[int]]
Numbers = Tensor | NDArray[np.floating] | Sequence[float]
