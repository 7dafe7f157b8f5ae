"""The student on several processes with a device each, which share the atoms out.

It sees no farther than 7 Å with one message, and is cheap: each rank works out its atoms and all
that these depend on, twice as far around, and hears of nothing but positions.
"""

from collections.abc import Sequence

import numpy as np
import torch

from mts_driver.potentials.devices import memory_said
from mts_driver.potentials.ranks.exchange import Ranks
from mts_driver.potentials.ranks.pairs import Share, SharedList
from mts_driver.potentials.ranks.potential import Part, Replica, SharedPotential
from mts_driver.potentials.student.device.evaluator import DeviceKernels
from mts_driver.potentials.student.device.potential import SKIN_A, DeviceStudent
from mts_driver.potentials.student.model import StudentModel
from mts_driver.structures.neighbor_matrix import NeighborMatrix


class SharedDeviceStudent(SharedPotential):
    """`DeviceStudent` on the devices of all ranks, which call it alike.

    Parameters
    ----------
    model, numbers, device, dtype, name
        As `DeviceStudent` takes them.
    ranks : Ranks
        Who shares.
    """

    parts_are_whole = True

    def __init__(
        self,
        model: StudentModel,
        numbers: Sequence[int],
        ranks: Ranks,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        name: str = "the student",
    ) -> None:
        how = {"device": device, "dtype": dtype, "name": name}
        self._student = DeviceStudent(model, numbers, **how)
        self.has_virial = self._student.has_virial
        super().__init__(numbers, ranks, offset_eV=self._student.offset_eV)

    def _replica(self) -> Replica:
        return _Replica(self._student, self._ranks)


class _Replica:
    _kernels: DeviceKernels

    def __init__(self, student: DeviceStudent, ranks: Ranks) -> None:
        self._student, config = student, student.model.config
        # of an atomic energy, or of a direct force
        field_A = config.cutoff_A * (2 if config.messages else 1)
        reach_A = field_A if config.direct else 2 * field_A
        self.pairs = SharedList(ranks, cutoff_A=reach_A, skin_A=SKIN_A, both=True, find_pairs=False)
        self._near = NeighborMatrix(cutoff_A=config.cutoff_A, skin_A=SKIN_A)
        self._share: Share | None = None
        self._generation = -1

    def part(self, positions_A: np.ndarray, cell_A: np.ndarray) -> Part:
        """Evaluate this rank's atoms; see `Replica.part`."""
        student, share = self._student, self.pairs.share
        x, cells = (torch.from_numpy(a).to(student.device)[None] for a in (positions_A, cell_A))
        with memory_said(student.name, len(positions_A), student.device):
            if share is not self._share:  # other atoms
                self._near.make_room()
                self._share = share
            self._near.update(x, cells)
            if self._generation != self._near.generation:
                kind = student.kind[torch.from_numpy(share.atoms).to(student.device)]
                self._kernels = DeviceKernels(student.model, kind, self._near, 1)
                self._generation = self._near.generation
            self._kernels.run(x, cells, whole=True)
        own, found = len(share.own), self._kernels
        return Part(
            float(found.energy[:own].double().sum()),
            found.forces[:own].cpu().numpy(),
            found.virials[:own].sum(0).view(3, 3).cpu().numpy(),
        )
