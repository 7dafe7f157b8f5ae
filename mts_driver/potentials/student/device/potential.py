"""The student on a device: positions, lists and kernels stay there."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from integrators.device.recorded import RecordedEvaluation
from integrators.linearized import Linearized
from integrators.state import Evaluation
from mts_driver.potentials.arrays import require_atoms
from mts_driver.potentials.devices import as_asked, as_batch, memory_said
from mts_driver.potentials.student.device.evaluator import DeviceKernels
from mts_driver.potentials.student.linearized import names_of, reference_pull
from mts_driver.potentials.student.model import StudentModel
from mts_driver.potentials.student.potential import kinds_of
from mts_driver.potentials.warp import warp
from mts_driver.structures.neighbor_matrix import NeighborMatrix

SKIN_A = 1.5
"""As of the teacher, whose lists are made anew at the same steps."""


class DeviceStudent:
    """A trained student bound to one set of atoms; ``student(positions, cell) -> Evaluation``.

    Parameters
    ----------
    model : StudentModel
        The trained model.
    numbers : sequence of int, length N
        Atomic numbers.
    device, dtype : str
        Torch device, the CPU too; ``float32`` or ``float64``. Distances are always in float64, and
        energies and forces are summed in it.
    name : str
        What error messages call it.

    Raises
    ------
    UserError
        If an element is not one that the student was trained for, or Warp is not installed.
    """

    recordable = forces_stay = True

    def __init__(
        self,
        model: StudentModel,
        numbers: Sequence[int],
        *,
        device: str = "cpu",
        dtype: str = "float32",
        name: str = "the student",
    ) -> None:
        warp()  # before anything else starts it, and says what it finds
        self.device, kinds = torch.device(device), kinds_of(model, numbers, name)
        self.numbers = np.array(numbers, np.int64)
        self.name = name
        self.offset_eV = float(model.offset.double().cpu()[kinds].sum())
        self.model = model.to(self.device, getattr(torch, dtype)).requires_grad_(False)
        self.kind = torch.tensor(kinds, dtype=torch.int32, device=self.device)
        self.near = NeighborMatrix(cutoff_A=model.config.cutoff_A, skin_A=SKIN_A)
        self._recorded = RecordedEvaluation()
        self._kernels: DeviceKernels | None = None
        self._generation = -1

    @property
    def has_virial(self) -> bool:
        """Whether forces come from an energy; direct ones have no virial."""
        return not self.model.config.direct

    def __call__(self, positions: Tensor, cell: Tensor) -> Evaluation:
        """Energies (…) eV, forces (…, N, 3) eV/Å and virials (…, 3, 3) eV of all replicas."""
        require_atoms(self, positions)
        x, cells = as_batch(positions, cell, self.device)
        self.update(x, cells)
        return as_asked(self._recorded(self, x, cells), positions)

    @property
    def place(self) -> tuple[int, ...]:
        """Another one whenever arrays are at another place."""
        return (self.near.generation,)

    @property
    def lists_recordable(self) -> bool:
        """Whether `rebuild` may be part of a CUDA graph."""
        return self.near.recordable

    def update(self, x: Tensor, cells: Tensor) -> None:
        """Have a list for positions (R, N, 3) and cells (R, 3, 3), Å; waits for the device."""
        with memory_said(self.name, x.shape[0] * x.shape[1], self.device):
            self.near.update(x, cells)
            self._kernels_now(len(x))

    def rebuild(self, x: Tensor, *, search: bool = True) -> None:
        """Make the list anew if it may not do for another step; waits for nothing."""
        self.near.refresh(x, search=search)

    def due(self, x: Tensor) -> Tensor:
        """Tell whether `rebuild` would make a list of cells anew here, as a bool on the device."""
        return self.near.due(x)

    def told(self) -> tuple[Tensor, ...]:
        """See `integrators.device.model.DeviceModel.told`."""
        return (self.near.told,)

    def renew(self) -> None:
        """Have the next `rebuild` make the list anew."""
        self.near.renew()

    def reach_further(self) -> None:
        """Have a list for which atoms may move further, from the next `update` on."""
        self.near.reach_further()

    def make_room(self) -> None:
        """Have rows that are long enough from the next `update` on."""
        self.near.make_room()

    def forces(self, x: Tensor, cells: Tensor) -> Tensor:
        """Return forces (R, N, 3) alone, as `evaluate` has them."""
        return self._run(x, cells, whole=False)

    def _run(self, x: Tensor, cells: Tensor, *, whole: bool) -> Tensor:
        kernels = self._kernels_now(len(x))
        kernels.run(x, cells, whole=whole)
        forces = kernels.forces.view(x.shape)
        return forces if self.has_virial else forces.sub_(forces.mean(1, keepdim=True))

    def evaluate(self, x: Tensor, cells: Tensor) -> Evaluation:
        """Evaluate with the list as it is; waits for nothing once it has been called.

        Parameters
        ----------
        x, cells : float64 Tensors, shapes (R, N, 3) and (R, 3, 3)
            On the device, Å.
        """
        forces, kernels = self._run(x, cells, whole=True), self._kernels_now(len(x))
        energies = kernels.energy.double().view(len(x), -1).sum(1) + self.offset_eV
        return Evaluation(energies, forces, kernels.virials.view(len(x), -1, 3, 3).sum(1))

    def linearized(
        self, positions: Tensor, cell: Tensor, parameters: Sequence[Tensor]
    ) -> Linearized:
        """Evaluate the student so that its forces can be pulled back, by torch in plain layers.

        Parameters
        ----------
        positions, cell, parameters
            As of `mts_driver.potentials.student.potential.Student.linearized`.

        Raises
        ------
        UserError
            If a weight is frozen, or is part of the scaling of inputs.
        """
        names, atoms = names_of(self.model, parameters), positions.shape[-2]
        evaluation = self(positions, cell)
        x, cells = as_batch(positions, cell, self.device)
        there, j, vectors = self.near.vectors(x, cells)
        beyond = vectors.new_tensor([2.0 * self.near.cutoff_A, 0.0, 0.0])
        vectors = torch.where(there[..., None], vectors, beyond).to(self.model.w1)
        graph = self.kind.repeat(len(x)).long(), j, vectors
        return Linearized(evaluation, reference_pull(self.model, graph, atoms, parameters, names))

    def _kernels_now(self, replicas: int) -> DeviceKernels:
        """Return those for the arrays that neighbours are in now."""
        if self._kernels is None or self._generation != self.near.generation:
            kind = self.kind.repeat(replicas)
            self._kernels = DeviceKernels(self.model, kind, self.near, replicas)
            self._generation = self.near.generation
        return self._kernels
