"""A molecular force field as it stands in a JSON file."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from ase.data import atomic_numbers

from mts_driver.errors import UserError
from mts_driver.potentials.classical.force_field import NEUTRAL, AtomType, ForceField, Molecule
from mts_driver.potentials.classical.parameters import check_names, number

_OPTIONAL = ("damping_per_A", "bonds", "angles", "shared")


def force_field_table(force_field: ForceField) -> dict[str, Any]:
    """Return a force field as a JSON object; its ``form`` is called ``van_der_waals_form``."""
    found = asdict(force_field)
    return {"van_der_waals_form": found.pop("form"), **found}


def read_force_field(table: Mapping[str, Any]) -> ForceField:
    """Return the force field of a JSON object.

    Raises
    ------
    UserError
        That names what is missing, unknown or cannot be.
    """
    known = ["van_der_waals_form", *(f.name for f in fields(ForceField) if f.name != "form")]
    given = {name: value for name, value in table.items() if name != "form"}
    needed = [name for name in known if name not in _OPTIONAL or name in given]
    check_names(given, needed, what="molecular")
    form = given.pop("van_der_waals_form")
    for name in set(given) - {"cutoff_A", "switch_A", "damping_per_A"}:
        _require_objects(name, given[name], nested=name != "shared")
    given["types"] = {name: _type(name, one) for name, one in given["types"].items()}
    given["molecules"] = {
        name: _molecule(name, one, given["types"]) for name, one in given["molecules"].items()
    }
    return ForceField(form=form, **given)


def _require_objects(name: str, value: Any, *, nested: bool) -> None:
    inner = value.values() if isinstance(value, dict) and nested else ()
    if not isinstance(value, dict) or not all(isinstance(one, dict) for one in inner):
        what = "an object of objects" if nested else "an object of numbers"
        raise UserError(f"{name}={value!r}: give {what}, by names.")


def _type(name: str, given: dict[str, Any]) -> AtomType:
    what = f"types.{name}"
    check_names(given, ["element", *(("charge_e",) if "charge_e" in given else ())], what=what)
    charge, element = given.get("charge_e"), given["element"]
    if element not in atomic_numbers:
        raise UserError(f"{what} has element={element!r}: give a chemical symbol.")
    if "." in name or "-" in name or not name:
        raise UserError(f"types has {name!r}: give names without dots and hyphens.")
    if charge is not None and charge != NEUTRAL:
        charge = number(f"charge_e.{name}", charge)
    return AtomType(element, charge)


def _molecule(name: str, given: dict[str, Any], types: Mapping[str, AtomType]) -> Molecule:
    what = f"molecules.{name}"
    check_names(given, ["types", *(("bonds",) if "bonds" in given else ())], what=what)
    atoms, bonds = given["types"], given.get("bonds", [])
    if not isinstance(atoms, list | tuple) or not atoms or set(map(str, atoms)) - set(types):
        raise UserError(f"{what} has types={atoms!r}: list some of {', '.join(types)}.")
    try:
        pairs = tuple((int(a), int(b)) for a, b in bonds)
        if any(a == b or min(a, b) < 0 or max(a, b) >= len(atoms) for a, b in pairs):
            raise ValueError(bonds)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{what} has bonds={bonds!r}: list pairs of its {len(atoms)} atoms, counted from 0."
        ) from error
    if len({tuple(sorted(pair)) for pair in pairs}) < len(pairs):
        raise UserError(f"{what} has bonds={bonds!r}, one of them twice: list each once.")
    return Molecule(tuple(atoms), pairs)
