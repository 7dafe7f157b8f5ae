"""Force fields as JSON files."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from mts_driver.errors import UserError
from mts_driver.files import read_json, write_json
from mts_driver.potentials.classical.force_field import ForceField, ForceFieldSpec, Molecule

FORMAT = 1


def read_force_field(path: str | Path) -> ForceFieldSpec:
    """Read a file that `write_force_field` or a user wrote.

    Raises
    ------
    UserError
        If it is not there, or not one.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"classical:{path}: there is no such file.")
    remedy = "see 'Classical models' in the documentation for what a file holds."
    found = read_json(path, keys=("format", "form", "parameters", "molecules"), remedy=remedy)
    if found.pop("format") != FORMAT:
        raise UserError(f"'{path}' is of another format than {FORMAT}: {remedy}")
    found.pop("record", None)
    try:
        molecules = tuple(
            Molecule(
                tuple(one["sites"]),
                tuple(tuple(bond) for bond in one.get("bonds", ())),
                tuple(tuple(angle) for angle in one.get("angles", ())),
            )
            for one in found.pop("molecules")
        )
        trained = tuple(found.pop("trained", ()))
        return ForceFieldSpec(**found, molecules=molecules, trained=trained)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"'{path}' is no force field ({type(error).__name__}: {error}): {remedy}"
        ) from error


def write_force_field(
    field: ForceField, path: str | Path, record: dict[str, Any] | None = None
) -> None:
    """Write a force field with its parameters as they are now, and how it was made."""
    now = {name: parameter.item() for name, parameter in field.values.items()}
    contents = asdict(replace(field.spec, parameters=now))
    molecules = [
        {name: value for name, value in one.items() if value} for one in contents.pop("molecules")
    ]
    contents = {"format": FORMAT, **contents, "molecules": molecules}
    write_json(Path(path), json.loads(json.dumps(contents | {"record": record or {}})))


def load_force_field(
    path: str | Path, numbers: Sequence[int], *, dtype: str = "float64"
) -> ForceField:
    """Load a force field for atoms, with nothing that asks for gradients."""
    field = ForceField(read_force_field(path), numbers)
    return field.to(getattr(torch, dtype)).requires_grad_(False)
