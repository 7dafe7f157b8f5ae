"""Random numbers of thermostat steps, sent by the host or drawn on the device."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from integrators.device.kernels import draw_kernel
from integrators.device.launches import Launches
from integrators.noise import Counter
from integrators.splitting import OU, Operation


class RandomNumbers:
    """Standard normal numbers at a fixed place.

    Parameters
    ----------
    splitting : iterable of Operation
        Whose thermostat steps they are for.
    device : torch.device
        Where they lie.
    """

    def __init__(self, splitting: Iterable[Operation], device: torch.device) -> None:
        ops = [k for k, op in enumerate(splitting) if isinstance(op, OU)]
        self._ops = torch.tensor(ops, dtype=torch.int32, device=device)
        self._counter = torch.zeros(4, dtype=torch.int64, device=device)
        self._drawn_here = False
        self._values = torch.zeros(0, dtype=torch.float64, device=device)
        self._launches = Launches(device)

    def __len__(self) -> int:
        return len(self._ops)

    @property
    def values(self) -> Tensor:
        """Those of every thermostat step, of the shape that was allocated."""
        return self._values

    def allocate(self, shape: tuple[int, ...]) -> None:
        """Have room for numbers of this shape for every step."""
        self._values = self._values.new_zeros((len(self), *shape))
        self._launches = Launches(self._values.device)
        if len(self):
            values = self._values.flatten(1)
            dim = len(self), (values.shape[1] + 1) // 2
            self._launches.add(draw_kernel(), dim, self._counter, self._ops, values)

    def send(self, numbers: np.ndarray | Counter) -> bool:
        """Copy numbers, or what they will be drawn from; tell if it was the other one before."""
        was, self._drawn_here = self._drawn_here, isinstance(numbers, Counter)
        if isinstance(numbers, Counter):
            # which need not wait for what the device still does
            self._counter.copy_(torch.tensor(numbers.words()), non_blocking=True)
        elif numbers.size:
            self._values.copy_(torch.from_numpy(numbers).view(self._values.shape))
        return was != self._drawn_here

    def draw(self) -> None:
        """Draw them where a counter was sent; waits for nothing."""
        if self._drawn_here:
            self._launches.run()
