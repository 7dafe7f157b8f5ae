"""SO3LR on several processes with a device each, which share the atoms out."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mts_driver.potentials.devices import memory_said
from mts_driver.potentials.ranks.exchange import Ranks
from mts_driver.potentials.ranks.pairs import Share, SharedList
from mts_driver.potentials.ranks.potential import Part, Replica, SharedPotential
from mts_driver.potentials.so3lr.device.longrange import DeviceLongRange
from mts_driver.potentials.so3lr.device.pairs import Owned, ShortPairs
from mts_driver.potentials.so3lr.device.potential import SKIN_A, DeviceSO3LR
from mts_driver.potentials.so3lr.longrange import CUTOFF_A
from mts_driver.structures.neighbor_matrix import NeighborMatrix


class SharedDeviceSO3LR(SharedPotential):
    """`DeviceSO3LR` on the devices of all ranks, which call it alike.

    Lists and pairs of a rank's atoms, and all that is worked out of them, stay on its device;
    ranks tell each other what lies in their halos through the host.

    Parameters
    ----------
    numbers, charge, device, dtype
        As `DeviceSO3LR` takes them.
    ranks : Ranks
        Who shares.
    """

    def __init__(
        self,
        numbers: Sequence[int],
        ranks: Ranks,
        *,
        charge: float = 0.0,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        self._model = DeviceSO3LR(numbers, charge=charge, device=device, dtype=dtype)
        super().__init__(numbers, ranks, offset_eV=self._model.offset_eV)

    def _replica(self) -> Replica:
        return _Replica(self._model, self._ranks)


class _Replica:
    _pairs: ShortPairs
    _long_range: DeviceLongRange

    def __init__(self, model: DeviceSO3LR, ranks: Ranks) -> None:
        self._model = model
        near_A = model.near.cutoff_A
        self.pairs = SharedList(
            ranks, cutoff_A=CUTOFF_A, skin_A=SKIN_A, near_A=near_A, both=False, find_pairs=False
        )
        self._far = NeighborMatrix(cutoff_A=CUTOFF_A, skin_A=SKIN_A, ordered=False)
        self._near = NeighborMatrix(cutoff_A=near_A, skin_A=SKIN_A, within=self._far)
        self._share: Share | None = None
        self._generations = (-1, -1)

    def part(self, positions_A: np.ndarray, cell_A: np.ndarray) -> Part:
        """Evaluate the pairs of this rank; see `Replica.part`."""
        model = self._model
        x, cells = (torch.from_numpy(a).to(model.device)[None] for a in (positions_A, cell_A))
        with memory_said("so3lr", len(positions_A), model.device):
            short = self._short(x, cells)
            # ranks wait for one another on the way back, too, which is to be on this thread
            with torch.autograd.set_multithreading_enabled(False):
                found = model.derived(self._pairs, self._long_range, short, x, cells, self._share)
        energy, forces, virials = found
        return Part(
            float(energy[0]),
            forces.view(-1, 3).cpu().numpy(),
            virials.sum(0).cpu().numpy(),
        )

    def _short(self, x: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the pairs within the short cutoff, with lists and arrays that have room."""
        share, device = self.pairs.share, self._model.device
        if share is not self._share:  # other atoms
            for near in (self._far, self._near):
                near.make_room()
            self._share = share
        for near in (self._far, self._near):
            near.update(x, cells)
        generations = self._near.generation, self._far.generation
        while True:
            if generations != self._generations:
                names = torch.from_numpy(share.atoms).to(device, torch.int32)
                owned = Owned(len(share.own), names)
                self._pairs = ShortPairs(self._near, x, cells, owned=owned)
                self._long_range = DeviceLongRange(self._model.constants, self._far, 1, share)
                self._generations = generations
            short = self._pairs(x, cells)
            if not bool(self._pairs.told[1]):
                return short
            self._generations = (-1, -1)
