"""Classical models as JSON files: a form, its numbers, and which of them are trained."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mts_driver.errors import UserError
from mts_driver.files import read_json, write_json
from mts_driver.potentials.classical.forms import FORMS
from mts_driver.potentials.classical.model import ClassicalPotential
from mts_driver.potentials.classical.molecular import MolecularForceField
from mts_driver.potentials.classical.pair_models import PairModel
from mts_driver.potentials.classical.parameters import train_only, trained
from mts_driver.potentials.classical.springs import HarmonicWells, Springs
from mts_driver.potentials.classical.stillinger_weber import StillingerWeber

MAKERS: dict[str, Callable[[dict[str, Any], Sequence[int]], ClassicalPotential]] = {
    **dict.fromkeys(FORMS, PairModel.from_table),
    "molecular": MolecularForceField.from_table,
    "stillinger-weber": StillingerWeber.from_table,
    "harmonic-wells": HarmonicWells.from_table,
    "springs": Springs.from_table,
}
"""What makes the model of each form, from a file's numbers and atomic numbers."""


def write_model(model: ClassicalPotential, path: Path) -> None:
    """Write a model with its present values; parameters that require a gradient are ``trained``.

    Parameters
    ----------
    model : ClassicalPotential
        Of a form in `MAKERS`.
    path : Path
        Usually ``NAME.json``; replaced in one step.
    """
    write_json(path, {**model.table(), "trained": list(trained(model))})


def read_model(path: Path, numbers: Sequence[int]) -> ClassicalPotential:
    """Read a model for atoms of given atomic numbers.

    Parameters
    ----------
    path : Path
        A file as `write_model` makes it. Only parameters in its list ``trained`` require a
        gradient; all, if it has none.
    numbers : sequence of int, length N
        Atomic numbers.

    Raises
    ------
    UserError
        If there is no such file, it is no model, or one for other atoms.
    """
    if not path.is_file():
        raise UserError(f"classical model {str(path)!r} is no file: give the path of a JSON file.")
    remedy = "give the JSON file of a classical model."
    table = read_json(path, keys=["form"], remedy=remedy)
    names = table.pop("trained", None)
    make = MAKERS.get(table["form"]) if isinstance(table["form"], str) else None
    if make is None:
        raise UserError(f"'{path}' has form={table['form']!r}: use {', '.join(MAKERS)}.")
    try:
        model = make(table, numbers)
        if names is not None:
            if not isinstance(names, list):
                raise UserError(f"trained={names!r}: give a list of names of parameters.")
            train_only(model, names)
    except UserError as error:
        raise UserError(f"'{path}': {error}") from error
    return model
