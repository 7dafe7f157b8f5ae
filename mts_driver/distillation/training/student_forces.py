"""The student's forces as a function of its weights, differentiable once: what training needs."""

from typing import Any

import torch
from torch import Tensor

from mts_driver.distillation.training import tangent_kernel
from mts_driver.distillation.training.dataset import Graph
from mts_driver.potentials.student.cpu.evaluator import FusedStudent
from mts_driver.potentials.student.cpu.splines import START_A, cells_per_A, radial_table
from mts_driver.potentials.student.model import (
    INPUT_BOUND,
    MESSAGE_BOUND,
    StudentModel,
    bounded,
    bounded_slope,
)


def student_forces(model: StudentModel, graph: Graph) -> Tensor:
    """Return the forces on all atoms of a graph, eV/Å, shape (M, 3).

    They carry gradients to the weights of the model. On the CPU both ways go through fused kernels;
    elsewhere, and for direct students, torch differentiates the reference model.
    """
    if model.w1.device.type == "cpu" and not model.config.direct:
        trained = [p for p in model.parameters() if p.requires_grad]
        return _Forces.apply(model, graph, *trained)
    return reference_forces(model, graph)


def reference_forces(model: StudentModel, graph: Graph) -> Tensor:
    """Return the same from the model in plain torch."""
    kind, neighbors, vectors = graph.padded(model.config.cutoff_A, model.w1)
    if model.config.direct:
        forces = model.direct_forces(kind, neighbors, vectors)
        parts = forces.split(graph.sizes)
        return torch.cat([part - part.mean(0) for part in parts])
    vectors.requires_grad_()
    energy = model.energies(kind, neighbors, vectors).sum()
    (pull,) = torch.autograd.grad(energy, vectors, create_graph=True)
    return pull.sum(1).index_add(0, neighbors.flatten(), -pull.flatten(0, 1))


class _Forces(torch.autograd.Function):
    """Forces by the inference kernels; their gradient by the derivative of E along it."""

    @staticmethod
    def forward(ctx: Any, model: StudentModel, graph: Graph, *trained: Tensor) -> Tensor:
        ctx.model, ctx.graph, ctx.trained = model, graph, trained
        _, forces, _ = FusedStudent(model)(graph.near, graph.by_element, len(graph.near.kind))
        return torch.from_numpy(forces).to(model.w1.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            slope = -_energy_along(ctx.model, ctx.graph, grad.contiguous())
            found = torch.autograd.grad(slope, ctx.trained, allow_unused=True)
        return (None, None, *found)


def _energy_along(model: StudentModel, graph: Graph, along: Tensor) -> Tensor:
    """Differentiate the energy along ``along`` (M, 3), without the repulsion, which has no weights.

    `StudentModel.read` and `decide` once more, every quantity followed by its derivative.
    """
    config, counts = model.config, graph.by_element.counts
    row = torch.from_numpy(graph.by_element.row)
    level = _Tangents.apply(radial_table(model, model.radial), model, 0, graph, along)
    a = _by_element(level, counts, model.w1, model.b1)
    states = _silu(*a)
    a2, da2 = _by_element(states, counts, model.w2[:, : config.hidden], model.b2)
    if config.messages:
        q, dq = _by_element(states, counts, model.wq)
        table = radial_table(model, model.radial2)
        message, dmessage = 1.0 + bounded(q, MESSAGE_BOUND), dq * bounded_slope(q, MESSAGE_BOUND)
        level = _Tangents.apply(table, model, 1, graph, along, message[row], dmessage[row])
        more, dmore = _by_element(level, counts, model.w2[:, config.hidden :])
        a2, da2 = a2 + more, da2 + dmore
    _, dh = _silu(a2, da2)
    return sum((x @ w).sum() for x, w in zip(dh.split(counts), model.w3, strict=True))


def _by_element(pair, counts, matrices, bias=None):
    """X W + b and dx W, every element with matrices of its own."""
    out, dout = [], []
    for e, (x, dx) in enumerate(zip(*(t.split(counts) for t in pair), strict=True)):
        out.append(x @ matrices[e] if bias is None else torch.addmm(bias[e], x, matrices[e]))
        dout.append(dx @ matrices[e])
    return torch.cat(out), torch.cat(dout)


def _silu(x: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
    s = x.sigmoid()
    h = x * s
    return h, dx * (s + h * (1.0 - s))


class _Tangents(torch.autograd.Function):
    """Inputs of a network and their change along a direction.

    Differentiable by the table of radial functions and by what neighbours have sent.
    """

    @staticmethod
    def forward(
        ctx: Any,
        table: Tensor,
        model: StudentModel,
        level: int,
        graph: Graph,
        along: Tensor,
        *message: Tensor,
    ) -> tuple[Tensor, Tensor]:
        config = model.config
        scaling = (model.shift2, model.scale2) if level else (model.shift, model.scale)
        dtype = table.detach().numpy().dtype.type
        nothing = table.new_empty(0, config.channels)
        args = (
            *(graph.near, along.numpy(), graph.by_element.row),
            (table.detach().contiguous().numpy(), START_A, cells_per_A(config.cutoff_A)),
            (*(t.detach().view(len(t), 10, -1).numpy() for t in scaling), dtype(INPUT_BOUND**-2)),
            *(t.detach().contiguous().numpy() for t in message or 2 * [nothing]),
        )
        ctx.kernels = tangent_kernel.kernels(table.shape[-1])
        results = ctx.kernels.tangents(*args)
        ctx.args = (*args, results)
        ctx.first_level = not message
        inputs, dinputs = (torch.from_numpy(a).flatten(1) for a in results[2:])
        return inputs, dinputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        shape = ctx.args[-1][2].shape
        given = [g.clone().view(shape).numpy() for g in grads]
        found = ctx.kernels.tangents_back(*ctx.args, *given)
        table, *message = (torch.from_numpy(a) for a in found)
        return (table, None, None, None, None, *([] if ctx.first_level else message))
