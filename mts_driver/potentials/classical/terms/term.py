"""A part of an energy that can be evaluated, and vectors be pulled back through its forces."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from integrators.linearized import Linearized, Pull
from integrators.state import Evaluation
from mts_driver.potentials.classical.terms.coordinates import Coordinates
from mts_driver.structures.neighbors import Floats

Function = Callable[[Tensor, Tensor, int], tuple[Tensor, ...]]
"""From coordinates q (K,), their kinds (K,) and an order n: φ and its first n derivatives in q."""


class Term(Protocol):
    """Part of an energy of positions (R, N, 3) in cells (R, 3, 3), float64 on the CPU."""

    def energy(self, x: Tensor, cells: Tensor) -> Tensor:
        """Energies (R,), eV, with a graph to all that requires a gradient."""
        ...

    def evaluate(self, x: Tensor, cells: Tensor) -> Evaluation:
        """Energies, forces and virials, detached."""
        ...

    def linearized(self, x: Tensor, cells: Tensor, parameters: Sequence[Tensor]) -> Linearized:
        """Evaluate so that vectors can be pulled back to positions and parameters."""
        ...


class InternalTerm:
    """Σ φ(q) over internal coordinates; derivatives of φ written out, all else compiled loops.

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
            value, slope = (_array(f, q.values) for f in self._function(q.values, q.kinds, 1))
        return _evaluation(q.spread(value, slope), x)

    def linearized(self, x: Tensor, cells: Tensor, parameters: Sequence[Tensor]) -> Linearized:
        """Evaluate so that vectors can be pulled back; see `Term`."""
        q = self._coordinates.measure(x.numpy(), cells.numpy())
        with torch.enable_grad():
            functions = self._function(q.values, q.kinds, 2)
        value, slope, curve = (_array(f, q.values) for f in functions)
        graphs = functions[:2]

        def pull(along: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
            flat = along.detach().reshape(-1, 3).numpy()
            pulled, *weights = q.pull_back(value, slope, curve, flat)
            pairs = [
                (graph, torch.from_numpy(weight).reshape(graph.shape))
                for graph, weight in zip(graphs, weights, strict=True)
                if graph.requires_grad
            ]
            by_parameter: tuple[Tensor | None, ...] = (None,) * len(parameters)
            if pairs and parameters:
                outputs, seeds = zip(*pairs, strict=True)
                by_parameter = torch.autograd.grad(
                    outputs, parameters, seeds, retain_graph=True, allow_unused=True
                )
            return torch.from_numpy(pulled).reshape(x.shape), by_parameter

        return Linearized(_evaluation(q.spread(value, slope), x), pull)


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

    def linearized(self, x: Tensor, cells: Tensor, parameters: Sequence[Tensor]) -> Linearized:
        """Evaluate so that vectors can be pulled back; see `Term`."""
        x = x.detach().requires_grad_()
        found = differentiated(self.energy, x, cells, graph=True)

        def pull(along: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
            by_x, *rest = torch.autograd.grad(
                found.forces, (x, *parameters), along, retain_graph=True, allow_unused=True
            )
            return torch.zeros_like(along) if by_x is None else by_x, tuple(rest)

        return Linearized(Evaluation(*(one.detach() for one in found)), pull)


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


def together(parts: Sequence[Pull]) -> Pull:
    """Return the pull of a sum of terms."""

    def pull(along: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        found = [part(along) for part in parts]
        by_parameter = []
        for slopes in zip(*(slopes for _, slopes in found), strict=True):
            known = [slope for slope in slopes if slope is not None]
            by_parameter.append(torch.stack(known).sum(0) if known else None)
        return torch.stack([pulled for pulled, _ in found]).sum(0), tuple(by_parameter)

    return pull


def _array(function: Tensor, like: Tensor) -> Floats:
    return function.detach().expand_as(like).contiguous().numpy()


def _evaluation(arrays: tuple[Floats, Floats, Floats], x: Tensor) -> Evaluation:
    energies, forces, virials = (torch.from_numpy(array) for array in arrays)
    return Evaluation(energies, forces.reshape(x.shape), virials)
