"""A student evaluated by its kernels on a device: four launches over arrays that stay."""

from typing import Any

import torch
from torch import Tensor

from integrators.device.launches import Launches, shared, warp
from mts_driver.potentials.student.cpu.splines import (
    START_A,
    cells_per_A,
    radial_table,
    repulsion_table,
)
from mts_driver.potentials.student.device.stages import stages
from mts_driver.potentials.student.model import INPUT_BOUND, MESSAGE_BOUND, StudentModel
from mts_driver.structures.neighbor_matrix import NeighborMatrix

THREADS = {"cpu": 1, "cuda": 128}
"""Of an atom."""
HALVES = 16
"""Sums in which an atom's forces are added up."""


class DeviceKernels:
    """The kernels of one model for one list of neighbours.

    Parameters
    ----------
    model : StudentModel
        On the device, in the precision of the kernels.
    kind : int32 Tensor, shape (M,)
        Which of the model's elements every atom of all replicas is.
    near : NeighborMatrix
        As it is in its present generation.
    replicas : int
        R.

    Attributes
    ----------
    energy : Tensor, shape (M,)
        Atomic energies without those of free atoms, eV, behind a whole `run`; zeros of direct
        students.
    forces, virials : float64 Tensors, shapes (M, 3) and (M, 9)
        eV/Å, behind `run`, and eV, behind a whole one.
    """

    def __init__(
        self, model: StudentModel, kind: Tensor, near: NeighborMatrix, replicas: int
    ) -> None:
        self._device, self._dtype, self._atoms = kind.device, model.w1.dtype, len(kind)
        self._threads = THREADS[self._device.type]
        self._kept = list[Tensor]()
        wp, self._stages = warp(), stages(self._dtype == torch.float64)
        self.energy = self._array()
        self.forces = self._array(3, dtype=torch.float64)
        self.virials = self._array(9, dtype=torch.float64)
        found, net, work = self._near(model, kind, near), self._network(model), self._work(model)
        nothing = shared(torch.zeros(0, 0, dtype=self._dtype, device=self._device))
        self._launches = {whole: Launches(self._device) for whole in (False, True)}
        # until `run` says where they are
        x = self._array(3, dtype=torch.float64).view(replicas, -1, 3)
        cells = torch.zeros(replicas, 3, 3, dtype=torch.float64, device=self._device)
        self._read = x.data_ptr(), cells.data_ptr()
        for whole, launches in self._launches.items():

            def add(kernel: Any, *arguments: Any, to: Launches = launches) -> None:
                how = {"block": self._threads}
                to.add(kernel, (self._atoms, self._threads), *arguments, self._threads, **how)

            add(
                *(self._stages.first, shared(x.flatten(0, 1), wp.vec3d), shared(cells, wp.mat33d)),
                *(x.shape[1], shared(near.reference.flatten(0, 1), wp.vec3d), near.skin_A),
                *(near.left, found, net, work, nothing),
            )
            if model.config.direct:
                add(self._stages.direct, found, net, work, self.forces)
                continue
            add(self._stages.second, found, net, work, self.energy, int(whole))
            ends = int(whole), self.forces, self.virials
            add(self._stages.back, found, net, work, *ends)
            add(self._stages.last, found, net, work, nothing, *ends)

    def run(self, x: Tensor, cells: Tensor, *, whole: bool) -> None:
        """Launch the kernels, of forces alone if not ``whole``; returns before a GPU is done.

        Parameters
        ----------
        x, cells : float64 Tensors, shapes (R, N, 3) and (R, 3, 3)
            Å; read where they are, by a graph that is recorded here too.
        whole : bool
            Whether energies and virials are asked for.
        """
        if (x.data_ptr(), cells.data_ptr()) != self._read:
            self._read = x.data_ptr(), cells.data_ptr()
            places = shared(x.flatten(0, 1), warp().vec3d), shared(cells, warp().mat33d)
            for launches in self._launches.values():
                launches.replace(0, places)
        self._launches[whole].run()

    def _array(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        shape = self._atoms, *shape
        return torch.zeros(shape, dtype=dtype or self._dtype, device=self._device)

    def _filled(self, structure: Any, tensors: dict[str, Tensor], **numbers: float) -> Any:
        for name, tensor in tensors.items():
            whole = tensor.detach().contiguous()
            self._kept.append(whole)
            setattr(structure, name, shared(whole))
        for name, number in numbers.items():
            setattr(structure, name, number)
        return structure

    def _near(self, model: StudentModel, kind: Tensor, near: NeighborMatrix) -> Any:
        wp, length = warp(), near.neighbors.shape[1]
        found = self._filled(
            self._stages.Near(),
            {
                "neighbors": near.neighbors,
                "count": near.count,
                "kind": kind,
                "cell": self._array(length, dtype=torch.int32),
                "within": self._array(length),
            },
            kinds=len(model.config.elements),
            start=START_A,
            per_length=cells_per_A(model.config.cutoff_A),
            cutoff=model.config.cutoff_A,
        )
        unit = self._array(length, 4)
        self._kept.append(unit)
        number = wp.float64 if self._dtype == torch.float64 else wp.float32
        found.images = shared(near.images, wp.vec3i)
        found.unit = shared(unit, wp.types.vector(4, number))
        return found

    def _network(self, model: StudentModel) -> Any:
        config, kinds = model.config, len(model.config.elements)
        hidden, p = config.hidden, config.messages
        none = model.w1.new_zeros
        table, pairs = radial_table(model, model.radial).flatten(0, 1), none(0, 0, 0, 0)
        if not config.direct:
            pairs = repulsion_table(model).to(table).flatten(0, 1)[..., None]
        w2, w2b = model.w2[:, :hidden], model.w2[:, hidden:]
        wq = model.wq if p else none(kinds, hidden, 0)
        second = none(1, 1, 4, 0), none(kinds, 0), none(kinds, 0)
        if p:
            table2 = radial_table(model, model.radial2).flatten(0, 1)
            second = table2, model.shift2.flatten(1), model.scale2.flatten(1)
        return self._filled(
            self._stages.Network(),
            {
                "table1": table,
                "table2": second[0],
                "pairs": pairs,
                "shift1": model.shift.flatten(1),
                "scale1": model.scale.flatten(1),
                "shift2": second[1],
                "scale2": second[2],
                "w1": model.w1,
                "b1": model.b1,
                "w2": torch.cat([w2, wq], 2),
                "b2": model.b2,
                "w2b": w2b,
                "w3": model.w3 if config.direct else model.w3[..., None],
                "back2": torch.cat([w2.mT, w2b.mT], 2),
                "back_message": wq.mT,
                "back1": model.w1.mT,
            },
            input_bound=INPUT_BOUND**-2,
            message_bound=MESSAGE_BOUND**-2,
        )

    def _work(self, model: StudentModel) -> Any:
        c, p, hidden = model.config.channels, model.config.messages, model.config.hidden
        out = 2 * (c + p) if model.config.direct else hidden + 10 * p

        def shares(width: int) -> int:
            return max(1, self._threads // max(width, 1))

        def of_threads(width: int) -> Tensor:
            return self._array(shares(width), width)

        one, two = 10 * c, 10 * p
        widths = {
            **{"m1": one, "x1": one, "by_x1": one, "by_m1": one},
            **{"m2": two, "x2": two, "by_x2": two, "by_m2": two},
            **{name: hidden for name in ("a1", "h1", "a2", "h2", "g1")},
            **{"raw": p, "message": p, "by_message": p},
            "g2": out if model.config.direct else hidden,
            "repulsion": shares(c),
        }
        return self._filled(
            self._stages.Work(),
            {
                **{name: self._array(width) for name, width in widths.items()},
                "moments1": self._array(shares(c), one),
                "layer1": of_threads(hidden),
                "layer2": of_threads(hidden + p),
                "moments2": self._array(shares(p), two),
                "layer2b": of_threads(hidden),
                "layer3": of_threads(out),
                "layer1_back": of_threads(one),
                "pulled": self._array(shares(c) * c, 12),
                "pulled_on": self._array(shares(p) * p, 12),
                "told": self._array(shares(p), p),
                "halves": self._array(HALVES, 12, dtype=torch.float64),
            },
        )
