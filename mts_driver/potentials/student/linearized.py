"""Pulls of a student's forces: see `integrators.linearized`.

For a direction u and forces F(x, p), a pull gives (∂F/∂x)ᵀ u and (∂F/∂p)ᵀ u, by fused kernels or by
torch in the reference model.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from integrators.linearized import Pull
from mts_driver.errors import UserError
from mts_driver.potentials.student.cpu.evaluator import ByElement, Near
from mts_driver.potentials.student.cpu.hessian.product import HessianProduct
from mts_driver.potentials.student.model import StudentModel

Names = Sequence[str | None]


def names_of(model: StudentModel, parameters: Sequence[Tensor]) -> Names:
    """Return what the model calls each of some tensors; None for those that it does not have.

    Raises
    ------
    UserError
        If a weight requires no gradient, or belongs to the scaling of inputs.
    """
    known = {id(p): name for name, p in model.named_parameters()}
    names = [known.get(id(p)) for p in parameters]
    for name, p in zip(names, parameters, strict=True):
        if name is not None and name.startswith(("shift", "scale")):
            raise UserError(
                f"parameters: {name} of the student scales the inputs of its networks and has no "
                "gradient. Leave it out; all other weights have one."
            )
        if name is not None and not p.requires_grad:
            raise UserError(
                f"parameters: {name} of the student is frozen (requires_grad is False). Bind its "
                "model with TrainableStudent, or leave it out."
            )
    return names


def fused_pull(
    hessian: HessianProduct, near: Near, by_element: ByElement, atoms: int, names: Names
) -> Pull:
    """Return the pull by fused kernels, at the positions that ``near`` is from.

    Parameters
    ----------
    hessian, near, by_element
        The kernels, and what they take.
    atoms : int
        Of a replica.
    names : sequence of str
        Of the weights, None for parameters of others.

    Raises
    ------
    UserError
        By the pull, if the direction has not the shape of the positions.
    """

    def pull(along: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        u = along.detach().double().cpu().numpy().reshape(-1, 3)
        if u.shape[0] != len(near.kind):
            raise UserError(
                f"along has shape {tuple(along.shape)}; the pull of {len(near.kind)} atoms takes "
                "the shape of their positions."
            )
        by_positions, by_weights = hessian(near, by_element, atoms, u, {n for n in names if n})
        found = torch.from_numpy(by_positions).reshape(along.shape).to(along)
        return found, tuple(by_weights[n] if n else None for n in names)

    return pull


@torch.enable_grad()
def reference_pull(
    model: StudentModel,
    graph: tuple[Tensor, Tensor, Tensor],
    atoms: int,
    parameters: Sequence[Tensor],
    names: Names,
) -> Pull:
    """Return the same by torch: a second derivative, of direct forces a first one.

    Parameters
    ----------
    graph : tuple of Tensor
        Kinds, neighbours and vectors, as `StudentModel.energies` takes them.
    atoms, names
        As of `fused_pull`.
    parameters : sequence of Tensor
        What has these names.
    """
    kind, neighbors, vectors = graph
    moved = vectors.new_zeros(len(kind), 3, requires_grad=True)
    r = vectors + moved[neighbors] - moved[:, None]
    if model.config.direct:
        forces = model.direct_forces(kind, neighbors, r).view(-1, atoms, 3)
        forces = forces - forces.mean(1, keepdim=True)
    else:
        energy = model.energies(kind, neighbors, r).sum()
        forces = -torch.autograd.grad(energy, moved, create_graph=True)[0]
    own = [p for p, name in zip(parameters, names, strict=True) if name]

    def pull(along: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        u = along.detach().to(forces).reshape(forces.shape)
        found = iter(torch.autograd.grad(forces, (moved, *own), u, materialize_grads=True))
        by_positions = next(found).reshape(along.shape).to(along)
        return by_positions, tuple(next(found) if name else None for name in names)

    return pull
