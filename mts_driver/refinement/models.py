"""Models whose parameters can be fitted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from torch import Tensor

from integrators.state import Potential
from mts_driver.errors import UserError
from mts_driver.potentials.classical.file import read_force_field, write_force_field
from mts_driver.potentials.classical.force_field import ForceField
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
    energy : callable or None
        Potential energy with a graph to the parameters; None where it has none.
    gas_phase : callable or None
        Returns the model of one of its molecules alone, for the atomic numbers of that.
    as_it_was : callable or None
        Of a student: returns it as it was before the fit.
    """

    potential: Potential
    parameters: Mapping[str, Tensor]
    save: Callable[[Path, dict[str, Any]], Path]
    energy: Energy | None = None
    gas_phase: Callable[[Sequence[int]], Potential] | None = None
    as_it_was: Callable[[], Potential] | None = None


def open_model(spec: str, atoms: Atoms, train: Sequence[str] = ()) -> Trainable:
    """Open a model to fit it.

    Parameters
    ----------
    spec : str
        ``classical:FILE``, or ``student:FILE`` or what else names a student.
    atoms : ase.Atoms
        What it is for.
    train : sequence of str
        Names of the parameters to fit; empty: all, or those that a classical model names.

    Raises
    ------
    UserError
        If it is neither, or has no parameter of these names.
    """
    kind, _, rest = spec.partition(":")
    if kind == "classical":
        return _classical(rest, atoms, train)
    if kind in ("so3lr", "ase", "metatomic", "socket"):
        raise UserError(
            f"model={spec!r} cannot be fitted: give student:FILE or classical:FILE, and this one "
            "as the teacher."
        )
    return _student(rest or spec, atoms, train)


def _classical(path: str, atoms: Atoms, train: Sequence[str]) -> Trainable:
    spec = read_force_field(path)
    field = ForceField(spec, atoms.numbers.tolist())
    everything = dict(field.values.items())
    parameters = _chosen(everything, train or spec.trained, f"classical:{path}")
    for name, parameter in everything.items():
        parameter.requires_grad_(name in parameters)

    def save(folder: Path, record: dict[str, Any]) -> Path:
        file = folder / f"{Path(path).stem}.json"
        write_force_field(field, file, record)
        return file

    def gas_phase(numbers: Sequence[int]) -> Potential:
        alone = ForceField(spec, numbers)
        alone.values = field.values
        return alone

    return Trainable(field, parameters, save, field.energy, gas_phase)


def _student(name: str, atoms: Atoms, train: Sequence[str]) -> Trainable:
    raise UserError(f"{name} {atoms} {train}")


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
