"""SO3LR on a device: lists, network and long-range sum stay there, in arrays of fixed shapes."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from integrators.device.recorded import RecordedEvaluation
from integrators.state import Evaluation
from mts_driver.potentials.arrays import require_atoms
from mts_driver.potentials.devices import as_asked, as_batch, memory_said
from mts_driver.potentials.elements import check_elements
from mts_driver.potentials.ranks.pairs import Share
from mts_driver.potentials.so3lr.device.attention import device_layers
from mts_driver.potentials.so3lr.device.geometry import DeviceGeometry
from mts_driver.potentials.so3lr.device.longrange import DeviceLongRange
from mts_driver.potentials.so3lr.device.pairs import ShortPairs
from mts_driver.potentials.so3lr.longrange import CUTOFF_A, LongRange
from mts_driver.potentials.so3lr.network import HalfListTransformer
from mts_driver.potentials.so3lr.potential import ELEMENTS, packaged_model
from mts_driver.potentials.warp import warp
from mts_driver.structures.neighbor_matrix import NeighborMatrix

SKIN_A = 1.5
"""Outer steps of 6 fs move hydrogens by a quarter of an ångström, so that lists last two."""


class DeviceSO3LR:
    """SO3LR bound to one set of atoms; ``so3lr(positions, cell) -> Evaluation``.

    Parameters
    ----------
    numbers : sequence of int, length N
        Atomic numbers.
    charge : float
        Total charge of the system, e.
    device, dtype : str
        Torch device, the CPU too; ``float32`` or ``float64`` of the network. The rest is float64.

    Raises
    ------
    UserError
        If so3krates-torch or Warp is not installed, or an element is not one of SO3LR's.
    """

    recordable, forces_stay = True, False

    def __init__(
        self,
        numbers: Sequence[int],
        *,
        charge: float = 0.0,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        check_elements(numbers, ELEMENTS, model="SO3LR")
        warp()  # before anything else starts it, and says what it finds
        self.numbers = np.array(numbers, np.int64)
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        packaged, alphas, c6 = packaged_model(self.device, self.dtype)
        z = torch.as_tensor(self.numbers, device=self.device)
        self._layers = device_layers(packaged)
        self._network = HalfListTransformer(
            packaged, z, charge, attention=self._layers, geometry=DeviceGeometry(packaged)
        )
        self.constants = LongRange(self.numbers, alphas, c6)
        shifts = packaged.atomic_energy_output_block.energy_shifts
        self.offset_eV = float(shifts.double().cpu()[self.numbers - 1].sum())
        self.far = NeighborMatrix(cutoff_A=CUTOFF_A, skin_A=SKIN_A, ordered=False)
        self.near = NeighborMatrix(cutoff_A=float(packaged.r_max), skin_A=SKIN_A, within=self.far)
        self._recorded = RecordedEvaluation()
        self._pairs: ShortPairs | None = None
        self._long_range: DeviceLongRange | None = None
        self._generations, self._made, self._most_pairs = (-1, -1), 0, 0

    def __call__(self, positions: Tensor, cell: Tensor) -> Evaluation:
        """Energies (…) eV, forces (…, N, 3) eV/Å and virials (…, 3, 3) eV of all replicas."""
        require_atoms(self, positions)
        x, cells = as_batch(positions, cell, self.device)
        self.update(x, cells)
        found = self._recorded(self, x, cells)
        while any(bool(told[1]) for told in self.told()):
            self.make_room()
            self.update(x, cells)
            found = self._recorded(self, x, cells)
        return as_asked(found, positions)

    @property
    def place(self) -> tuple[int, ...]:
        """Another one whenever arrays are at another place."""
        return (self._made, *self._generations)

    @property
    def lists_recordable(self) -> bool:
        """Whether `rebuild` may be part of a CUDA graph."""
        return self.far.recordable

    def update(self, x: Tensor, cells: Tensor) -> None:
        """Have lists and arrays for these positions; waits for the device."""
        with memory_said("so3lr", x.shape[0] * x.shape[1], self.device):
            for near in (self.far, self.near):
                near.update(x, cells)
            if self._pairs is None or self._generations[0] != self.near.generation:
                self._pairs = ShortPairs(self.near, x, cells, least=self._most_pairs)
                self._most_pairs = self._pairs.length
                self._made += 1
            if self._long_range is None or self._generations[1] != self.far.generation:
                self._long_range = DeviceLongRange(self.constants, self.far, len(x))
            self._generations = self.near.generation, self.far.generation

    def rebuild(self, x: Tensor, *, search: bool = True) -> None:
        """Make lists anew that may not do for another step; waits for nothing."""
        for near in (self.far, self.near):
            near.refresh(x, search=search)

    def due(self, x: Tensor) -> Tensor:
        """Tell whether `rebuild` would make lists of cells anew here, as a bool on the device."""
        return self.far.due(x)

    def told(self) -> tuple[Tensor, ...]:
        """See `integrators.device.model.DeviceModel.told`."""
        assert self._pairs is not None
        return self.near.told, self.far.told, self._pairs.told

    def renew(self) -> None:
        """Have the next `rebuild` make lists anew."""
        for near in (self.far, self.near):
            near.renew()

    def reach_further(self) -> None:
        """Have lists for which atoms may move further, from the next `update` on."""
        for near in (self.far, self.near):
            near.reach_further()

    def make_room(self) -> None:
        """Have lists and arrays that are long enough from the next `update` on."""
        for near in (self.far, self.near):
            near.make_room()
        self._pairs = None

    def forces(self, x: Tensor, cells: Tensor) -> Tensor:
        """Return forces (R, N, 3)."""
        return self.evaluate(x, cells).forces

    def evaluate(self, x: Tensor, cells: Tensor) -> Evaluation:
        """Evaluate with the lists as they are; waits for nothing.

        Parameters
        ----------
        x, cells : float64 Tensors, shapes (R, N, 3) and (R, 3, 3)
            On the device, Å.
        """
        assert self._pairs is not None and self._long_range is not None
        for near in (self.far, self.near):
            near.look(x)
        short = self._pairs(x, cells)
        with memory_said("so3lr", x.shape[0] * x.shape[1], self.device):
            energy, forces, virials = self.derived(self._pairs, self._long_range, short, x, cells)
        virials = virials.view(len(x), -1, 3, 3).sum(1)
        return Evaluation(energy + self.offset_eV, forces.view(x.shape), virials)

    def derived(
        self,
        pairs: ShortPairs,
        far: DeviceLongRange,
        short: tuple[Tensor, Tensor, Tensor],
        x: Tensor,
        cells: Tensor,
        share: Share | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Energies (R,) without offsets, forces (M, 3) and virials (M, 3, 3) of atoms.

        With a ``share``, what this rank's atoms and pairs have of the energy of one replica.

        Parameters
        ----------
        pairs, far : ShortPairs and DeviceLongRange
            For the lists as they are.
        short : tuple of Tensors
            What ``pairs`` has given.
        x, cells : float64 Tensors, shapes (R, N, 3) and (R, 3, 3)
            On the device, Å.
        share : Share, optional
            Of the ranks that evaluate one replica together.
        """
        i, j, vectors = short
        leaf = vectors.to(self.dtype).requires_grad_()
        for layer in self._layers:
            layer.rows = pairs.rows
        with torch.enable_grad():
            found = self._network(i, j, leaf, replicas=len(x), share=share)
            energy = found[0].double().sum(-1) + far(*found[1:], x, cells)
            (pull,) = torch.autograd.grad(energy.sum(), leaf)
        pairs.gather(vectors, pull.double(), far.forces, far.virials)
        return energy.detach(), far.forces, far.virials
