"""The student on several processes, which share the atoms out."""

from collections.abc import Sequence

import numpy as np

from mts_driver.potentials.ranks.exchange import Ranks
from mts_driver.potentials.ranks.pairs import SharedList
from mts_driver.potentials.ranks.potential import Part, Replica, SharedPotential
from mts_driver.potentials.student.cpu.evaluator import ByElement, FusedStudent
from mts_driver.potentials.student.cpu.rows import Rows, compress
from mts_driver.potentials.student.model import StudentModel
from mts_driver.potentials.student.potential import SKIN_A, kinds_of


class SharedStudent(SharedPotential):
    """`Student` on the CPUs of all ranks, which call it alike.

    Parameters
    ----------
    model, numbers, name
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
        self._kind = kinds_of(model, numbers, name)
        self.model, self.has_virial = model.requires_grad_(False), not model.config.direct
        offset_eV = float(model.offset.double()[self._kind].sum())
        super().__init__(numbers, ranks, offset_eV=offset_eV)
        self._have(1)  # so that kernels are loaded now, and not in the first call

    def _replica(self) -> Replica:
        return _Replica(self.model, self._kind, self._ranks)


class _Replica:
    """Pairs in rows, and the kernels with arrays of their size."""

    def __init__(self, model: StudentModel, kind: np.ndarray, ranks: Ranks) -> None:
        self._config, self._kind = model.config, kind
        self.pairs = SharedList(ranks, cutoff_A=model.config.cutoff_A, skin_A=SKIN_A, both=True)
        self._kernels = FusedStudent(model)
        self._builds = 0

    def part(self, positions_A: np.ndarray, cell_A: np.ndarray) -> Part:
        """Evaluate this rank's atoms; see `Replica.part`."""
        if self._builds != self.pairs.builds:
            self._builds = self.pairs.builds
            self._rows = self._rows_of_own()
        near = self._rows.near(positions_A, self.pairs.shifts(cell_A), self._config.cutoff_A)
        atoms = max(len(positions_A), 1)  # a rank may have none
        halo = self.pairs.share.all
        energy, forces, virial = self._kernels(near, self._rows.by_element, atoms, halo)
        return Part(float(energy[: halo.own_count].sum(dtype=np.float64)), forces, virial[0])

    def _rows_of_own(self) -> Rows:
        stored, share = self.pairs.stored, self.pairs.share
        own, kind = len(share.own), self._kind[share.atoms]
        images = stored.image, stored.last - stored.image
        first, neighbors, images_of = compress(stored.i, stored.j, *images, len(kind))
        first[own + 1 :] = first[own]  # the rows of others' atoms are theirs
        entries = neighbors[: first[own]], images_of[: first[own]]
        by_element = ByElement.of(kind, len(self._config.elements), np.arange(own))
        return Rows(first, *entries, kind, by_element, share.atoms)
