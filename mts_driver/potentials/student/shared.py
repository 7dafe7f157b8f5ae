"""The student on several processes, which share the atoms out."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mts_driver.potentials.arrays import ArrayPotential, Arrays
from mts_driver.potentials.ranks.exchange import Ranks
from mts_driver.potentials.ranks.pairs import SharedList
from mts_driver.potentials.ranks.total import Total
from mts_driver.potentials.student.cpu.evaluator import ByElement, FusedStudent
from mts_driver.potentials.student.cpu.rows import Rows, compress
from mts_driver.potentials.student.model import StudentModel
from mts_driver.potentials.student.potential import SKIN_A, kinds_of, without_mean


class SharedStudent(ArrayPotential):
    """`Student` on the CPUs of all ranks, which call it alike.

    Parameters
    ----------
    model, numbers, dtype, name
        As `Student` takes them.
    ranks : Ranks
        Who shares.

    Raises
    ------
    UserError
        If an element is not one that the student was trained for.
    """

    def __init__(
        self,
        model: StudentModel,
        numbers: Sequence[int],
        ranks: Ranks,
        *,
        name: str = "the student",
    ) -> None:
        self.numbers, self._kind = np.array(numbers, np.int64), kinds_of(model, numbers, name)
        self.model = model.requires_grad_(False)
        self.offset_eV = float(model.offset.double()[self._kind].sum())
        self._ranks = ranks
        self._replicas: list[_Replica] = []

    @property
    def has_virial(self) -> bool:
        """Whether forces come from an energy; direct ones have no virial."""
        return not self.model.config.direct

    def evaluate(self, positions_A: np.ndarray, cells_A: np.ndarray) -> Arrays:
        """Evaluate replica after replica; see `ArrayPotential.evaluate`."""
        while len(self._replicas) < len(positions_A):
            self._replicas.append(_Replica(self.model, self._kind, self._ranks))
        total = Total(self._ranks, replicas=len(positions_A), atoms=len(self.numbers))
        for k, (x, cell) in enumerate(zip(positions_A, cells_A, strict=True)):
            total.add(k, *self._replicas[k].evaluate(x, cell))
        energies, forces, virials = total.over_all_ranks()
        if not self.has_virial:
            forces = without_mean(forces)
        return energies + self.offset_eV, forces, virials


class _Replica:
    """One structure: its pairs, and the kernels with arrays of its size."""

    def __init__(self, model: StudentModel, kind: np.ndarray, ranks: Ranks) -> None:
        self._config, self._kind = model.config, kind
        self._list = SharedList(ranks, cutoff_A=model.config.cutoff_A, skin_A=SKIN_A, both=True)
        self._kernels = FusedStudent(model)
        self._builds = 0

    def evaluate(self, x: np.ndarray, cell: np.ndarray) -> "_Part":
        stored = self._list.stored(x, cell)
        share = self._list.share
        if self._builds != self._list.builds:
            self._builds = self._list.builds
            own, kind = len(share.own), self._kind[share.atoms]
            images = stored.image, stored.last - stored.image
            first, neighbors, images = compress(stored.i, stored.j, *images, len(kind))
            first[own + 1 :] = first[own]  # the rows of others' atoms are theirs
            end = first[own]
            by_element = ByElement.of(kind, len(self._config.elements), np.arange(own))
            entries = neighbors[:end], images[:end]
            self._rows = Rows(first, *entries, kind, by_element, share.atoms)
        shifts = self._list.shifts(cell)
        near = self._rows.near(x[share.atoms], shifts, self._config.cutoff_A)
        atoms = max(len(share.atoms), 1)  # a rank may have none
        energy, forces, virial = self._kernels(near, self._rows.by_element, atoms, share.all)
        return _Part(float(energy.sum(dtype=np.float64)), share.atoms, forces, virial[0])


class _Part(NamedTuple):
    energy_eV: float
    atoms: np.ndarray
    forces_eV_A: np.ndarray
    virial_eV: np.ndarray
