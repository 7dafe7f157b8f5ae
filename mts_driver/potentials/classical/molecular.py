"""Flexible molecules: bonds, angles, charges and van der Waals interactions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mts_driver.errors import UserError
from mts_driver.potentials.classical.electrostatics import COULOMB_EV_A, damped_shifted_force
from mts_driver.potentials.classical.force_field import Assigned, ForceField, assign, charge_matrix
from mts_driver.potentials.classical.force_field_table import (
    force_field_table,
    read_force_field,
)
from mts_driver.potentials.classical.forms import FORMS, harmonic
from mts_driver.potentials.classical.model import ClassicalPotential
from mts_driver.potentials.classical.parameters import (
    by_kind,
    check_names,
    each,
    number,
    of_kinds,
    parameter,
)
from mts_driver.potentials.classical.terms.bonds import Angles, Bonds
from mts_driver.potentials.classical.terms.near_pairs import NearPairs
from mts_driver.potentials.classical.terms.term import Function, InternalTerm

BOND = ("bond_k_eV_A2", "bond_length_A")
ANGLE = ("angle_k_eV_rad2", "angle_rad")


class MolecularForceField(ClassicalPotential):
    """A molecular force field bound to the molecules that a set of atoms is made of.

    The energy is Σ ½k(r − r₀)² over bonds, Σ ½k(θ − θ₀)² over angles, and over all other pairs
    within the cutoff that are more than two bonds apart, a van der Waals function between types
    that have one (Lorentz-Berthelot rules: arithmetic means of lengths, geometric ones of energies)
    and damped shifted electrostatics. Both are switched off smoothly at the cutoff.

    Parameters are named by what they are and by their type: ``epsilon_eV.OW``, ``charge_e.HW``,
    ``bond_k_eV_A2.OW-HW``, ``angle_rad.HW-OW-HW``. A charge that makes molecules neutral is none.

    Parameters
    ----------
    force_field : ForceField
        The tables.
    numbers : sequence of int, length N
        Atomic numbers, molecule by molecule.

    Raises
    ------
    UserError
        If the atoms are not made of the molecules, or have no interaction at all, or a number is
        missing, unknown or out of its range.
    """

    def __init__(self, force_field: ForceField, numbers: Sequence[int]) -> None:
        force_field = read_force_field(force_field_table(force_field))
        found = assign(force_field, numbers)
        super().__init__(len(numbers), numbers)
        self.force_field, self._types = force_field, found.types
        self._cutoff_A = number("cutoff_A", force_field.cutoff_A)
        self._alpha_per_A = number("damping_per_A", force_field.damping_per_A)
        self._excluded = found.excluded
        self._here: dict[str, list[str]] = {}
        self._add_internal(found)
        self._add_van_der_waals()
        self._add_charges()
        if not self.terms:
            raise UserError(
                "none of the atoms has an interaction: give bonds, charges or the like."
            )

    def charges(self) -> Tensor:
        """Charges of all types that have one, e, in the order of the force field's types."""
        return self._neutral @ of_kinds(self.charge_e, self._free)

    def table(self) -> dict[str, Any]:
        """All of the model as it is written to a file, with the present values."""

        def present(names: Iterable[str], keys: Iterable[str]) -> dict[str, dict[str, float]]:
            return {key: {name: getattr(self, name)[key].item() for name in names} for key in keys}

        said = self.force_field
        types = {
            name: replace(kind, charge_e=self.charge_e[name].item()) if name in self._free else kind
            for name, kind in said.types.items()
        }
        shared = {name: getattr(self, name).item() for name in self._form.shared}
        found = replace(
            said,
            types=types,
            van_der_waals=present(self._form.of_types, said.van_der_waals),
            bonds=present(BOND, said.bonds),
            angles=present(ANGLE, said.angles),
            shared={**shared, **self._constants},
        )
        return {"form": "molecular", **force_field_table(found)}

    @classmethod
    def from_table(cls, table: Mapping[str, Any], numbers: Sequence[int]) -> "MolecularForceField":
        """Make the model of a `table`."""
        return cls(read_force_field(table), numbers)

    def _add_internal(self, found: Assigned) -> None:
        for table, names, keys, groups, coordinates, function in (
            ("bonds", BOND, found.bond_names, found.bonds, Bonds, self._bond),
            ("angles", ANGLE, found.angle_names, found.angles, Angles, self._angle),
        ):
            values = getattr(self.force_field, table)
            for key, given in values.items():
                check_names(given, names, what=f"{table}.{key}")
            for name in names:
                known = {key: given[name] for key, given in values.items()}
                self.add_module(name, by_kind(name, known))
            here = self._here[table] = [key for key in values if key in keys]
            if here:
                kinds = np.array([here.index(key) for key in keys])
                self.terms.append(InternalTerm(coordinates(self.atoms, groups, kinds), function))

    def _add_van_der_waals(self) -> None:
        force_field = self.force_field
        if force_field.form not in FORMS:
            raise UserError(f"form={force_field.form!r} is not known: use {', '.join(FORMS)}.")
        self._form = FORMS[force_field.form]
        shared = {**self._form.shared, **force_field.shared}
        check_names(shared, [*self._form.shared, *self._form.constants], what="shared")
        for name in self._form.shared:
            self.register_parameter(name, parameter(name, shared[name]))
        self._constants = {name: number(name, shared[name]) for name in self._form.constants}
        for kind, given in force_field.van_der_waals.items():
            if kind not in force_field.types:
                raise UserError(
                    f"van_der_waals has {kind!r}: types are {', '.join(force_field.types)}."
                )
            check_names(given, self._form.of_types, what=f"van_der_waals.{kind}")
        for name in self._form.of_types:
            values = {kind: given[name] for kind, given in force_field.van_der_waals.items()}
            self.add_module(name, by_kind(name, values))
        here = [kind for kind in force_field.van_der_waals if kind in self._types]
        self._here["van_der_waals"] = here
        self._add_pairs(here, self._van_der_waals)

    def _add_charges(self) -> None:
        charged, self._free, matrix = charge_matrix(self.force_field)
        self.charge_e = by_kind(
            "charge_e", {name: self.force_field.types[name].charge_e for name in self._free}
        )
        here = [k for k, name in enumerate(charged) if name in self._types]
        self._charged, self._neutral = [charged[k] for k in here], torch.from_numpy(matrix[here])
        self._add_pairs(self._charged, self._coulomb)

    def _add_pairs(self, kinds: list[str], function: Function) -> None:
        members = [atom for atom, kind in enumerate(self._types) if kind in kinds]
        if members:
            numbers = [kinds.index(kind) if kind in kinds else 0 for kind in self._types]
            pairs = NearPairs(
                self.atoms,
                cutoff_A=self._cutoff_A,
                switch_A=number("switch_A", self.force_field.switch_A),
                members=members,
                excluded=self._excluded,
                kinds=numbers,
            )
            self.terms.append(InternalTerm(pairs, function))

    def _bond(self, r: Tensor, kinds: Tensor, order: int) -> tuple[Tensor, ...]:
        k, rest = (each(getattr(self, name), self._here["bonds"], kinds) for name in BOND)
        return harmonic(r, order, k, rest)

    def _angle(self, theta: Tensor, kinds: Tensor, order: int) -> tuple[Tensor, ...]:
        k, rest = (each(getattr(self, name), self._here["angles"], kinds) for name in ANGLE)
        return harmonic(theta, order, k, rest)

    def _van_der_waals(self, r: Tensor, kinds: Tensor, order: int) -> tuple[Tensor, ...]:
        values, here = {}, self._here["van_der_waals"]
        for name, mixed in self._form.of_types.items():
            own = getattr(self, name)
            if len(here) == 1:
                values[name] = own[here[0]]
            else:
                column = of_kinds(own, here)
                values[name] = mixed(column[:, None], column).flatten().index_select(0, kinds)
        for name in self._form.shared:
            values[name] = getattr(self, name)
        return self._form.function(r, order, **values, **self._constants)

    def _coulomb(self, r: Tensor, kinds: Tensor, order: int) -> tuple[Tensor, ...]:
        q = self.charges()
        products = (COULOMB_EV_A * torch.outer(q, q)).flatten().index_select(0, kinds)
        found = damped_shifted_force(
            r, order, alpha_per_A=self._alpha_per_A, cutoff_A=self._cutoff_A
        )
        return tuple(products * v for v in found)
