"""A student that may be fitted while it drives dynamics."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mts_driver.errors import UserError
from mts_driver.potentials.arrays import Arrays
from mts_driver.potentials.student.cpu.evaluator import FusedStudent
from mts_driver.potentials.student.model import StudentModel
from mts_driver.potentials.student.potential import Student


class TrainableStudent(Student):
    """`Student` whose weights keep their gradients and may change between calls.

    Tables of the fused kernels are made anew in the first call after that.

    Parameters
    ----------
    model : StudentModel
        With weights that require gradients, such as `read_student` returns it. It is moved to the
        device and the precision in place: its parameters stay the same objects.
    numbers, options
        As of `Student`.

    Raises
    ------
    UserError
        As of `Student`, or if no weight requires a gradient.
    """

    def __init__(self, model: StudentModel, numbers: Sequence[int], **options: Any) -> None:
        trained = [p for p in model.parameters() if p.requires_grad]
        if not trained:
            raise UserError(
                "model: none of its weights requires a gradient, perhaps because a Student holds "
                "it, which freezes them. Read its file again with read_student, or call "
                "requires_grad_() on the weights that are to be fitted."
            )
        super().__init__(model, numbers, **options)
        for p in trained:
            p.requires_grad_()
        self._seen = self._versions()

    def evaluate(self, positions_A: np.ndarray, cells_A: np.ndarray) -> Arrays:
        """Evaluate all replicas with the weights as they are now."""
        if self._seen != self._versions():
            self.refresh()
        return super().evaluate(positions_A, cells_A)

    def refresh(self) -> None:
        """Take the weights as they are now.

        Calls do so by themselves after changes that torch counts: those by optimisers, in place
        under ``no_grad``, and by ``load_state_dict``. It does not count those of ``p.data``.
        """
        if self._kernels is not None:
            self._kernels = FusedStudent(self.model)
        self._seen = self._versions()

    def _versions(self) -> list[tuple[int, int]]:
        return [(p._version, p.data_ptr()) for p in self.model.parameters()]
