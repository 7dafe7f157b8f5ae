"""SO3LR on several processes, which share the atoms out."""

from collections.abc import Sequence

import numpy as np
import torch

from mts_driver.potentials.ranks.exchange import Ranks
from mts_driver.potentials.ranks.pairs import SharedList
from mts_driver.potentials.ranks.potential import Part, Replica, SharedPotential
from mts_driver.potentials.so3lr.longrange import CUTOFF_A
from mts_driver.potentials.so3lr.potential import SO3LR, sum_of_pairs


class SharedSO3LR(SharedPotential):
    """`SO3LR` on the CPUs of all ranks, which call it alike.

    Parameters
    ----------
    numbers, charge, dtype
        As `SO3LR` takes them.
    ranks : Ranks
        Who shares.
    """

    def __init__(
        self, numbers: Sequence[int], ranks: Ranks, *, charge: float = 0.0, dtype: str = "float32"
    ) -> None:
        self._model = SO3LR(numbers, charge=charge, dtype=dtype)
        super().__init__(numbers, ranks, offset_eV=self._model.offset_eV)

    def _replica(self) -> Replica:
        return _Replica(self._model, self._ranks)


class _Replica:
    def __init__(self, model: SO3LR, ranks: Ranks) -> None:
        self._model = model
        self.pairs = SharedList(
            ranks, cutoff_A=CUTOFF_A, skin_A=model.skin_A, near_A=model.short_A, both=False
        )

    def part(self, positions_A: np.ndarray, cell_A: np.ndarray) -> Part:
        """Evaluate the pairs of this rank; see `Replica.part`."""
        found = self.pairs.within(positions_A, cell_A)
        i, j, vectors, r = (torch.from_numpy(a) for a in found)
        share = self.pairs.share
        energy, pull = self._model.derived(i, j, vectors, r, replicas=1, share=share)
        forces = sum_of_pairs(i, j, pull, len(positions_A))
        return Part(float(energy[0]), forces.numpy(), -(vectors.T @ pull).numpy())
