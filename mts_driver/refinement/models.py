"""Models whose parameters can be fitted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from torch import Tensor

from integrators.state import Potential
from mts_driver.errors import UserError
from mts_driver.potentials.classical.file import read_model, write_model
from mts_driver.potentials.classical.parameters import train_only
from mts_driver.potentials.load import NAMED
from mts_driver.potentials.student.energy import StudentEnergy
from mts_driver.potentials.student.file import (
    find_student,
    load_student,
    read_student,
    save_student,
)
from mts_driver.potentials.student.trainable import TrainableStudent
from mts_driver.refinement.observables.arguments import Energy


@dataclass(frozen=True, eq=False)
class Trainable:
    """A model for some atoms, and what can be fitted in it.

    Attributes
    ----------
    potential : Potential
        Can be pulled back; see `integrators.linearized`.
    parameters : mapping of str to Tensor
        Leaves that require gradients.
    save : callable
        Writes the model to a folder, with a record of how it was made, and returns the file.
    energy : callable
        Potential energy with a graph to positions, cell and parameters.
    gas_phase : callable or None
        Returns the model of one of its molecules alone, for the atomic numbers of that.
    as_it_was : callable or None
        Of a student: returns it as it was before the fit.
    """

    potential: Potential
    parameters: Mapping[str, Tensor]
    save: Callable[[Path, dict[str, Any]], Path]
    energy: Energy
    gas_phase: Callable[[Sequence[int]], Potential] | None = None
    as_it_was: Callable[[], Potential] | None = None


def open_model(
    spec: str, atoms: Atoms, train: Sequence[str] = (), *, precise: bool = False
) -> Trainable:
    """Open a model to fit it.

    Parameters
    ----------
    spec : str
        ``classical:FILE``, or ``student:FILE`` or what else names a student.
    atoms : ase.Atoms
        What it is for.
    train : sequence of str
        Names of the parameters to fit; empty: all, or those that a classical model's file names.
    precise : bool
        Whether a student is evaluated in float64, as second derivatives need it.

    Raises
    ------
    UserError
        If it is neither, or has no parameter of these names.
    """
    kind, _, rest = spec.partition(":")
    if kind == "classical":
        return _classical(rest, atoms, train)
    if kind in (*NAMED, "socket"):
        raise UserError(
            f"model={spec!r} cannot be fitted: give student:FILE or classical:FILE, and this one "
            "as the teacher."
        )
    return _student(rest or spec, atoms, train, precise)


def _classical(path: str, atoms: Atoms, train: Sequence[str]) -> Trainable:
    model = read_model(Path(path), atoms.numbers.tolist())
    everything = dict(model.named_parameters())
    if train:
        _chosen(everything, train, f"classical:{path}")
        train_only(model, train)
    parameters = {name: p for name, p in everything.items() if p.requires_grad}

    def save(folder: Path, _: dict[str, Any]) -> Path:
        file = folder / Path(path).name
        write_model(model, file)
        return file

    def of_others(numbers: Sequence[int]) -> Potential:
        return read_model(Path(path), numbers).requires_grad_(False)

    return Trainable(model, parameters, save, model.energy, of_others)


def _student(name: str, atoms: Atoms, train: Sequence[str], precise: bool) -> Trainable:
    path = find_student(name)
    model, record = read_student(path)
    if model.config.direct:
        raise UserError(
            f"student '{path}' gives forces directly: its trajectories heat up, so that averages "
            "over them say little; distil one with an energy."
        )
    numbers = atoms.numbers.tolist()
    called = f"the student '{name}'"
    dtype = "float64" if precise else "float32"
    student = TrainableStudent(model, numbers, name=called, dtype=dtype)
    weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
    parameters = _chosen(weights, train, f"student {name}")

    def save(folder: Path, how: dict[str, Any]) -> Path:
        file = folder / f"{path.stem}.safetensors"
        save_student(model, file, {**record, "refined": how})
        return file

    return Trainable(
        student,
        parameters,
        save,
        StudentEnergy(model, numbers, name=called),
        as_it_was=lambda: load_student(str(path), numbers, dtype=dtype),
    )


def _chosen(
    everything: Mapping[str, Tensor], train: Sequence[str], model: str
) -> dict[str, Tensor]:
    """Return the parameters of these names; all, where there are none."""
    for name in train:
        if name not in everything:
            raise UserError(
                f"train={name!r}: {model} has no such parameter; it has {', '.join(everything)}."
            )
    return {name: p for name, p in everything.items() if name in train or not train}
