"""A student evaluated by its kernels on a device: four launches over arrays that stay."""

from typing import Any

import torch
from torch import Tensor

from integrators.device.launches import Launches, shared, warp
from mts_driver.potentials.student.cpu.splines import (
    CELLS,
    START_A,
    cells_per_A,
    radial_table,
    repulsion_table,
)
from mts_driver.potentials.student.device.source import Sizes
from mts_driver.potentials.student.device.stages import stages
from mts_driver.potentials.student.model import INPUT_BOUND, MESSAGE_BOUND, StudentModel
from mts_driver.structures.neighbor_matrix import NeighborMatrix

FEW = 2_000
"""Atoms that do not keep a GPU busy."""


def threads_of(device: torch.device, atoms: int) -> int:
    """Return how many threads an atom has: on a GPU more where there are few atoms."""
    if device.type == "cpu":
        return 1
    return 128 if atoms < FEW else 64


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
        config = model.config
        self._sizes = Sizes(
            threads=threads_of(self._device, self._atoms),
            channels=config.channels,
            messages=config.messages,
            hidden=config.hidden,
            double=self._dtype == torch.float64,
        )
        self._kept = list[Tensor]()
        wp, threads = warp(), self._sizes.threads
        self.energy = self._array()
        self.forces = self._array(3, dtype=torch.float64)
        self.virials = self._array(9, dtype=torch.float64)
        # until `run` says where they are
        x = self._array(3, dtype=torch.float64).view(replicas, -1, 3)
        cells = torch.zeros(replicas, 3, 3, dtype=torch.float64, device=self._device)
        self._read = x.data_ptr(), cells.data_ptr()
        self._launches = dict[bool, Launches]()
        arrays = self._near(model, kind, near), self._network(model), self._work(model)
        for whole in (False, True):
            made, to = stages(self._sizes, whole=whole), Launches(self._device)
            found, net, work = (
                self._filled(structure(), *tensors)
                for structure, tensors in zip(made[:3], arrays, strict=True)
            )
            found.images = shared(near.images, wp.vec3i)

            def add(kernel: Any, *arguments: Any, to: Launches = to) -> None:
                to.add(kernel, (self._atoms, threads), *arguments, block=threads)

            self._launches[whole] = to
            add(
                *(made.first, shared(x.flatten(0, 1), wp.vec3d), shared(cells, wp.mat33d)),
                *(x.shape[1], shared(near.reference.flatten(0, 1), wp.vec3d), near.skin_A),
                *(near.told, found, net, work),
            )
            if config.direct:
                add(made.direct, found, net, work, self.forces.flatten())
                continue
            add(made.second, found, net, work, self.energy)
            ends = self.forces.flatten(), self.virials.flatten()
            add(made.back, found, net, work, *ends)
            add(made.last, found, net, work, *ends)

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

    def _filled(self, structure: Any, tensors: dict[str, Tensor], numbers: dict[str, float]) -> Any:
        for name, tensor in tensors.items():
            self._kept.append(tensor)
            setattr(structure, name, shared(tensor))
        for name, number in numbers.items():
            setattr(structure, name, number)
        return structure

    def _near(
        self, model: StudentModel, kind: Tensor, near: NeighborMatrix
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        length, whole = near.neighbors.shape[1], torch.int32
        arrays = {name: self._array(length, dtype=whole).flatten() for name in _ROWS}
        arrays |= {
            "neighbors": near.neighbors,
            "count": near.count,
            "kind": kind,
            "found": self._array(dtype=whole),
            "unit": self._array(length, 4).flatten(),
            "within": self._array(length).flatten(),
        }
        return arrays, {
            "kinds": len(model.config.elements),
            "grid": CELLS,
            "start": START_A,
            "per_length": cells_per_A(model.config.cutoff_A),
            "cutoff": model.config.cutoff_A,
        }

    def _network(self, model: StudentModel) -> tuple[dict[str, Tensor], dict[str, float]]:
        hidden, p, direct = model.config.hidden, model.config.messages, model.config.direct
        w2, w2b = model.w2[:, :hidden], model.w2[:, hidden:]
        table = radial_table(model, model.radial)
        kinds = len(model.config.elements)
        arrays = {
            # (E, E, G, C, 4): a cubic is read at once
            "table1": table.mT,
            "pairs": table.new_zeros(kinds, kinds, CELLS, 4),
            "shift1": model.shift,
            "scale1": model.scale,
            "w1": model.w1,
            "b1": model.b1,
            "w2": w2,
            "b2": model.b2,
            "w3": model.w3,
            "back2": w2.mT,
            "back1": model.w1.mT,
        }
        if not direct:
            arrays["pairs"] = repulsion_table(model)
        if p:
            arrays |= {
                "table2": radial_table(model, model.radial2).mT,
                "shift2": model.shift2,
                "scale2": model.scale2,
                "w2": torch.cat([w2, model.wq], 2),
                "w2b": w2b,
                "back2": torch.cat([w2.mT, w2b.mT], 2),
                "message": model.wq,
            }
        flat = {n: t.detach().to(table).contiguous().flatten() for n, t in arrays.items()}
        return flat, {"input_bound": INPUT_BOUND**-2, "message_bound": MESSAGE_BOUND**-2}

    def _work(self, model: StudentModel) -> tuple[dict[str, Tensor], dict[str, float]]:
        c, p, hidden = self._sizes.channels, self._sizes.messages, self._sizes.hidden
        widths = {
            **{name: 10 * c for name in ("m1", "x1", "by_m1")},
            **{name: 10 * p for name in ("m2", "x2", "by_m2")},
            **{name: hidden for name in ("a1", "a2", "g1")},
            **{name: p for name in ("raw", "message")},
            "repulsion": self._sizes.shares(c),
        }
        return {name: self._array(width).flatten() for name, width in widths.items()}, {}


_ROWS = "other", "at", "back"
