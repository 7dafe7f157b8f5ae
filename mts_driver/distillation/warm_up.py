"""Compiles the kernels of a distillation before its first number.

A parallel kernel that numba has just compiled is not the one that it loads from its cache in later
processes: linking optimises it once more, and sums without a fixed order come out in another one.
Where a distillation is to be repeated to the last bit, the process that compiles must not be the
one that counts.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import torch
from ase import Atoms
from numba.core import event

from mts_driver.distillation.distill import starting_model
from mts_driver.distillation.sampling.fragment_sampler import COMPLETE_A
from mts_driver.distillation.sampling.fragments import fragments
from mts_driver.distillation.sampling.sample import fragment_radius_A
from mts_driver.distillation.settings import DistillationSettings
from mts_driver.distillation.training.dataset import Graph
from mts_driver.distillation.training.loss import loss
from mts_driver.errors import UserError
from mts_driver.potentials import load_potential
from mts_driver.potentials.load import spec_for
from mts_driver.potentials.student.model import StudentModel
from mts_driver.potentials.student.potential import Student
from mts_driver.structures.tensors import cell_of


@contextmanager
def compilations() -> Iterator[list[object]]:
    """Collect what is compiled, rather than loaded from a cache, inside the block."""
    with event.install_recorder("numba:compile") as recorder:
        yield recorder.buffer


def compiled(systems: Sequence[Atoms], settings: DistillationSettings) -> bool:
    """Use teacher, student and training once; tell whether anything had to be compiled.

    Raises
    ------
    UserError
        As `mts_driver.distillation.distill.distill` does for these systems and settings.
    """
    with compilations() as found:
        model, _ = starting_model(systems, settings)
        for atoms in systems:
            radius_A = fragment_radius_A(atoms, settings)
            if radius_A:
                # also the whole, which its snapshots are made of
                Student(copy.deepcopy(model), atoms.numbers)(
                    torch.tensor(atoms.positions), cell_of(atoms)
                )
                (atoms,) = fragments(
                    atoms, count=1, seed=0, radius_A=radius_A, complete_A=COMPLETE_A
                )
            _use(atoms, settings, model)
    return bool(found)


def _use(atoms: Atoms, settings: DistillationSettings, model: StudentModel) -> None:
    x, cell = torch.tensor(atoms.positions), cell_of(atoms)
    spec = spec_for(settings.teacher, atoms)
    forces = torch.zeros_like(x)
    # a program behind a socket has nothing to compile, and would be left by the process that ends
    if not spec.startswith("socket:"):
        teacher = load_potential(spec, atoms.numbers, device=settings.device)
        with suppress(UserError):  # a start that is not relaxed may be more than it can do
            forces = teacher(x, cell).forces
    frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    frame.set_array("teacher_forces", forces.numpy())
    trained = copy.deepcopy(model)
    force_part, _ = loss(trained, [Graph.of(frame, trained.config)], [], force_rms=1.0)
    force_part.backward()
    Student(trained, atoms.numbers)(x, cell)
