"""Arrays that the kernels of the Hessian leave for each other and for gradients by weights."""

from typing import NamedTuple

import numpy as np

from mts_driver.potentials.student.cpu.evaluator import Weights, Workspace


class Again(NamedTuple):
    """What `Workspace` has not kept, with the rows of its blocks.

    Attributes
    ----------
    h1, inputs2 : arrays, shapes (R, ...)
        The first layer behind its nonlinearity; network inputs of the second sum.
    g1, g2, gq : arrays, shapes (R, ...)
        The energy's gradients by both layers before their nonlinearity, and by the messages before
        they are bounded.
    """

    h1: np.ndarray
    inputs2: np.ndarray
    g1: np.ndarray
    g2: np.ndarray
    gq: np.ndarray

    @classmethod
    def of(cls, work: Workspace, weights: Weights) -> "Again":
        """Allocate it; rows without an atom stay zero."""
        rows, dtype = len(work.inputs), work.inputs.dtype
        inputs2, gq = weights.w2b.shape[1], weights.wq.shape[2]
        return cls(
            h1=np.zeros_like(work.a1),
            inputs2=np.zeros((rows, inputs2), dtype),
            g1=np.zeros_like(work.a1),
            g2=np.zeros_like(work.a2),
            gq=np.zeros((rows, gq), dtype),
        )


class Changes(NamedTuple):
    """Derivatives along the direction of what has the same name in `Workspace` or `Again`.

    Attributes
    ----------
    h2 : array, shape (R, ...)
        Of the second layer behind its nonlinearity.
    grad_message, forces : arrays, shapes (CHUNKS, M, P), (CHUNKS, M, 3)
        To be summed over the chunks.
    """

    moments: np.ndarray
    inputs: np.ndarray
    a1: np.ndarray
    a2: np.ndarray
    h2: np.ndarray
    message_raw: np.ndarray
    message: np.ndarray
    h1: np.ndarray
    inputs2: np.ndarray
    g1: np.ndarray
    g2: np.ndarray
    gq: np.ndarray
    grad_message: np.ndarray
    forces: np.ndarray

    @classmethod
    def of(cls, work: Workspace, weights: Weights) -> "Changes":
        """Allocate them; rows without an atom stay zero."""
        like = np.zeros_like
        return cls(
            *(like(work.moments), like(work.inputs)),
            *(like(work.a1), like(work.a2), like(work.a2)),
            *(like(work.message), like(work.message)),
            *Again.of(work, weights),
            *(like(work.grad_message), like(work.forces)),
        )

    def fit(self, work: Workspace) -> bool:
        """Whether they have the sizes of ``work``."""
        return self.moments.shape == work.moments.shape and self.forces.shape == work.forces.shape
