"""A part of an energy that can be evaluated, and vectors be pulled back through its forces."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from integrators.linearized import Pull
from integrators.state import Evaluation
from mts_driver.potentials.arrays import Arrays
from mts_driver.potentials.classical.terms.coordinates import Coordinates

Function = Callable[[Tensor, Tensor, int], tuple[Tensor, ...]]
"""From coordinates q (K,), their kinds (K,) and an order n: φ and its first n derivatives in q."""


class Part(NamedTuple):
    """What a term knows at some positions x.

    Attributes
    ----------
    evaluation : Evaluation
        Of the term, detached.
    outputs : tuple of Tensor
        With graphs to parameters, and to x where the term is differentiated automatically.
    back : callable
        From a (R, N, 3) to what is known of (∂F/∂x)ᵀ a, the rest of which comes through the graphs,
        and to the derivatives of Σ F·a with respect to the outputs.
    """

    evaluation: Evaluation
    outputs: tuple[Tensor, ...]
    back: Callable[[Tensor], tuple[Tensor, tuple[Tensor, ...]]]


class Term(Protocol):
    """Part of an energy of positions (R, N, 3) in cells (R, 3, 3), float64 on the CPU."""

    def energy(self, x: Tensor, cells: Tensor) -> Tensor:
        """Energies (R,), eV, with a graph to all that requires a gradient."""
        ...

    def evaluate(self, x: Tensor, cells: Tensor) -> Evaluation:
        """Energies, forces and virials, detached."""
        ...

    def linearized(self, x: Tensor, cells: Tensor) -> Part:
        """Evaluate so that vectors can be pulled back to x, which is a leaf, and parameters."""
        ...


class InternalTerm:
    """Σ φ(q) s(q) over internal coordinates, by the derivatives of φ and compiled loops.

    Parameters
    ----------
    coordinates : Coordinates
        The q.
    function : Function
        φ in torch.
    """

    def __init__(self, coordinates: Coordinates, function: Function) -> None:
        self._coordinates, self._function = coordinates, function

    def energy(self, x: Tensor, cells: Tensor) -> Tensor:
        """Energies (R,), with a graph; see `Term`."""
        q = self._coordinates.graphed(x, cells)
        (value,) = self._function(q.values, q.kinds, 0)
        return x.new_zeros(len(x)).index_add(0, q.replica, value * q.switch)

    def evaluate(self, x: Tensor, cells: Tensor) -> Evaluation:
        """Energies, forces and virials; see `Term`."""
        q = self._coordinates.measure(x.numpy(), cells.numpy())
        with torch.no_grad():
            value, slope = self._function(q.values, q.kinds, 1)
        return _evaluation(q.spread(value.numpy(), slope.numpy()), x)

    def linearized(self, x: Tensor, cells: Tensor) -> Part:
        """Evaluate so that vectors can be pulled back; see `Term`."""
        q = self._coordinates.measure(x.detach().numpy(), cells.numpy())
        with torch.enable_grad():
            functions = self._function(q.values, q.kinds, 2)
        value, slope, curve = (one.detach().numpy() for one in functions)

        def back(along: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            found = q.pull_back(value, slope, curve, along.reshape(-1, 3).numpy())
            pulled, *seeds = (torch.from_numpy(array) for array in found)
            return pulled.reshape(x.shape), tuple(seeds)

        return Part(_evaluation(q.spread(value, slope), x), functions[:2], back)


class DifferentiatedTerm:
    """A term whose energy is differentiated automatically, twice for what is pulled back.

    Parameters
    ----------
    energy : callable
        From positions (R, N, 3) and cells (R, 3, 3) to energies (R,) with a graph.
    """

    def __init__(self, energy: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.energy = energy

    def evaluate(self, x: Tensor, cells: Tensor) -> Evaluation:
        """Energies, forces and virials; see `Term`."""
        found = differentiated(self.energy, x.detach().requires_grad_(), cells, graph=False)
        return Evaluation(*(one.detach() for one in found))

    def linearized(self, x: Tensor, cells: Tensor) -> Part:
        """Evaluate so that vectors can be pulled back; see `Term`."""
        found = differentiated(self.energy, x, cells, graph=True)

        def back(along: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            return torch.zeros_like(along), (along,)

        return Part(Evaluation(*(one.detach() for one in found)), (found.forces,), back)


def differentiated(
    energy: Callable[[Tensor, Tensor], Tensor], x: Tensor, cells: Tensor, *, graph: bool
) -> Evaluation:
    """Energies, forces and virials of (R, N, 3), by automatic differentiation.

    Parameters
    ----------
    energy : callable
        From positions and cells to energies (R,).
    x, cells : Tensor, shapes (R, N, 3) and (R, 3, 3)
        Å; ``x`` requires a gradient.
    graph : bool
        Whether the result carries a graph to positions and parameters.
    """
    with torch.enable_grad():
        strain = torch.zeros_like(cells).requires_grad_()
        energies = energy(x + x @ strain, cells + cells @ strain)
        gradient, slope = torch.autograd.grad(
            energies.sum(), (x, strain), create_graph=graph, materialize_grads=True
        )
    return Evaluation(energies, -gradient, -slope)


def pull_through(parts: Sequence[Part], x: Tensor, parameters: Sequence[Tensor]) -> Pull:
    """Return the pull of a sum of terms at ``x`` (R, N, 3), with one pass over all graphs."""

    def pull(along: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        pulled, outputs, seeds = torch.zeros_like(along), [], []
        for part in parts:
            known, own = part.back(along)
            pulled += known
            for output, seed in zip(part.outputs, own, strict=True):
                if output.requires_grad:
                    outputs.append(output)
                    seeds.append(seed)
        if not outputs:
            return pulled, (None,) * len(parameters)
        by_x, *by_parameter = torch.autograd.grad(
            outputs, (x, *parameters), seeds, retain_graph=True, allow_unused=True
        )
        return pulled if by_x is None else pulled + by_x, tuple(by_parameter)

    return pull


def _evaluation(arrays: Arrays, x: Tensor) -> Evaluation:
    energies, forces, virials = (torch.from_numpy(array) for array in arrays)
    return Evaluation(energies, forces.reshape(x.shape), virials)
