"""A student's Hessian times a vector on the CPU, and how its forces depend on its weights."""

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from mts_driver.potentials.student.cpu.evaluator import ByElement, FusedStudent, Near
from mts_driver.potentials.student.cpu.hessian.arrays import Again, Changes
from mts_driver.potentials.student.cpu.hessian.kernels import hessian_kernels
from mts_driver.potentials.student.cpu.hessian.layers import layer_kernels
from mts_driver.potentials.student.cpu.kernels import CHUNKS
from mts_driver.potentials.student.cpu.splines import basis_table
from mts_driver.potentials.student.model import MESSAGE_BOUND


class HessianProduct:
    """How the forces of a `FusedStudent` change along a direction.

    With E(x, p) the energy at positions x with weights p, and a direction u, these are

        −H u = −∂/∂x (u · ∂E/∂x)    and    −∂/∂p (u · ∂E/∂x),

    which are (∂F/∂x)ᵀ u, for the Hessian H is symmetric, and (∂F/∂p)ᵀ u.

    Parameters
    ----------
    fused : FusedStudent
        A student whose forces come from an energy.
    """

    def __init__(self, fused: FusedStudent) -> None:
        self.fused, config = fused, fused.model.config
        self._kernels = hessian_kernels(config.channels, config.messages)
        self._basis = basis_table(fused.model, fused.model.w1.dtype).numpy()
        self._layers = layer_kernels(self._basis.itemsize)
        self._arrays: tuple[Again, Changes] | None = None

    def __call__(
        self,
        near: Near,
        by_element: ByElement,
        atoms_per_replica: int,
        along: np.ndarray,
        weights: Collection[str],
    ) -> tuple[np.ndarray, dict[str, Tensor]]:
        """Return (∂F/∂x)ᵀ u (M, 3), and (∂F/∂p)ᵀ u for some weights p, by their names.

        Parameters
        ----------
        near, by_element, atoms_per_replica
            As the `FusedStudent` takes them; it is called again if its last call had others.
        along : ndarray, shape (M, 3)
            The direction u.
        weights : collection of str
            What the model calls the weights that the second is asked for.
        """
        fused = self.fused
        if fused.near is not near:
            fused(near, by_element, atoms_per_replica)
        work = fused.work
        assert work is not None
        if self._arrays is None or not self._arrays[1].fit(work):
            self._arrays = Again.of(work, fused.weights), Changes.of(work, fused.weights)
        again, changes = self._arrays
        for array in (changes.grad_message, changes.forces):
            array[:] = 0
        dtype = work.energy.dtype
        bound, here = dtype.type(MESSAGE_BOUND**-2), (near, by_element.blocks, along.astype(dtype))
        net = fused.weights, work
        radial, radial2 = (self._radial(name, weights) for name in ("radial", "radial2"))
        self._kernels.read(*here, *fused.first, *net, again, changes, bound)
        self._kernels.decide(*here, *fused.second, *net, again, changes, self._basis, radial2)
        self._kernels.pull_back(
            *(*here, *fused.first, *net, again, changes, bound, self._basis, radial)
        )
        layers = [name for name in weights if "radial" not in name]
        found = self._by_layers(again, changes, by_element.blocks[1], layers)
        sums = {"radial": radial, "radial2": radial2}
        found |= {name: torch.from_numpy(-g.sum(0)) for name, g in sums.items() if g.size}
        return changes.forces.sum(0), found

    def _radial(self, name: str, weights: Collection[str]) -> np.ndarray:
        """Zeros for every chunk's gradient by radial functions; empty if not asked for."""
        shape = tuple(getattr(self.fused.model, name).shape) if name in weights else (0, 0, 0, 0)
        return np.zeros((CHUNKS, *shape), self._basis.dtype)

    def _by_layers(
        self, again: Again, changes: Changes, element: np.ndarray, names: Collection[str]
    ) -> dict[str, Tensor]:
        """(∂F/∂p)ᵀ u of weights of the layers; ``element`` (B,) is that of every block."""
        model, work, weights = self.fused.model, self.fused.work, self.fused.weights
        assert work is not None

        def product(like: np.ndarray, *layer: np.ndarray) -> np.ndarray:
            out = np.empty_like(like)
            self._layers.minus_products(*layer, element, out)
            return out

        found = {}
        if "w1" in names:
            layer = work.inputs, changes.inputs, again.g1, changes.g1
            found["w1"] = product(weights.w1, *layer)
        if "wq" in names:
            found["wq"] = product(weights.wq, again.h1, changes.h1, again.gq, changes.gq)
        if "w2" in names:
            outputs, hidden = (again.g2, changes.g2), model.config.hidden
            by_state = product(weights.w2, again.h1, changes.h1, *outputs)
            by_sum = product(weights.w2b, again.inputs2, changes.inputs2, *outputs)
            found["w2"] = np.concatenate((by_state[:, :hidden], by_sum), 1)
        biases = {"b1": changes.g1, "b2": changes.g2, "w3": changes.h2}
        for name in biases.keys() & names:
            found[name] = np.empty_like(getattr(weights, name))
            self._layers.minus_sums(biases[name], element, found[name])
        shapes = {name: tuple(map(slice, getattr(model, name).shape)) for name in names}
        return {name: torch.from_numpy(found[name][shapes[name]]) for name in names}
