"""Molecular force fields as JSON files."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from mts_driver.errors import UserError
from mts_driver.files import read_json, write_json
from mts_driver.potentials.classical.force_field import AtomType, ForceField, Molecule
from mts_driver.potentials.classical.molecular import ANGLE, BOND, MolecularForceField

FORMAT = 1
REMEDY = "`mts_driver.potentials.classical.force_field.ForceField` says what a file holds."


def read_force_field(path: str | Path) -> ForceField:
    """Read the tables of a force field.

    Raises
    ------
    UserError
        If the file is not there, or not one.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"force field '{path}' does not exist: check the path.")
    found = read_json(path, keys=("format", "types", "molecules", "form"), remedy=REMEDY)
    if found.pop("format") != FORMAT:
        raise UserError(f"'{path}' is of another format than {FORMAT}: {REMEDY}")
    found.pop("record", None)
    try:
        types = {name: AtomType(**one) for name, one in found.pop("types").items()}
        molecules = {
            name: Molecule(tuple(one["types"]), tuple(tuple(b) for b in one.get("bonds", ())))
            for name, one in found.pop("molecules").items()
        }
        return ForceField(types=types, molecules=molecules, **found)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"'{path}' is no force field ({type(error).__name__}: {error}): {REMEDY}"
        ) from error


def write_force_field(
    force_field: ForceField, path: str | Path, record: Mapping[str, Any] | None = None
) -> None:
    """Write the tables of a force field, and how it was made."""
    write_json(Path(path), {"format": FORMAT, **asdict(force_field), "record": record or {}})


@torch.no_grad()
def tables_of(model: MolecularForceField) -> ForceField:
    """Return the force field of a model with its parameters as they are now."""
    now = {name: p.item() for name, p in model.named_parameters()}
    old = model.force_field

    def own(key: str, given: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
        return {**given, **{n: now[f"{n}.{key}"] for n in names if f"{n}.{key}" in now}}

    return replace(
        old,
        types={
            key: replace(one, charge_e=now.get(f"charge_e.{key}", one.charge_e))
            for key, one in old.types.items()
        },
        van_der_waals={k: own(k, given, list(given)) for k, given in old.van_der_waals.items()},
        bonds={key: own(key, given, BOND) for key, given in old.bonds.items()},
        angles={key: own(key, given, ANGLE) for key, given in old.angles.items()},
        shared={name: now.get(name, value) for name, value in old.shared.items()},
    )


def load_force_field(path: str | Path, numbers: Sequence[int]) -> MolecularForceField:
    """Load a force field for atoms, with nothing to be trained."""
    return MolecularForceField(read_force_field(path), numbers).requires_grad_(False)
