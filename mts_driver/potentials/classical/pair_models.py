"""Atoms of one kind with a van der Waals function between all pairs."""

from collections.abc import Mapping, Sequence
from typing import Any

from ase.data import chemical_symbols
from torch import Tensor

from mts_driver.errors import UserError
from mts_driver.potentials.classical.forms import FORMS
from mts_driver.potentials.classical.model import ClassicalPotential
from mts_driver.potentials.classical.parameters import check_names, number, parameter
from mts_driver.potentials.classical.terms.near_pairs import NearPairs
from mts_driver.potentials.classical.terms.term import InternalTerm

SWITCHED = 0.9
"""From which part of the cutoff on energies are switched off."""


class PairModel(ClassicalPotential):
    """Σ φ(r) s(r) over all pairs and their images within a cutoff, where s ends smoothly.

    Parameters
    ----------
    form : str
        A name in `FORMS`.
    numbers : sequence of int, length N
        Atomic numbers, all the same.
    values : mapping of str to float
        Every parameter of the form, which is then an attribute of the model; shared ones may be
        left out for their defaults.
    cutoff_A : float
        May be longer than half the cell.
    switch_A : float, optional
        Where the switch to zero starts; 0.9 of the cutoff if left out.

    Raises
    ------
    UserError
        If the form is not known, a number is missing, unknown or out of its range, or there are
        several elements.
    """

    def __init__(
        self,
        form: str,
        numbers: Sequence[int],
        values: Mapping[str, float],
        *,
        cutoff_A: float,
        switch_A: float | None = None,
    ) -> None:
        if form not in FORMS:
            raise UserError(f"form={form!r} is not known: use {', '.join(FORMS)}.")
        super().__init__(len(numbers), numbers)
        self.form, self._form = form, FORMS[form]
        self.element = only_element(numbers, form)
        self._fitted = [*self._form.of_types, *self._form.shared]
        values = {**self._form.shared, **values}
        check_names(values, [*self._fitted, *self._form.constants], what=form)
        for name in self._fitted:
            self.register_parameter(name, parameter(name, values[name]))
        self._constants = {name: number(name, values[name]) for name in self._form.constants}
        cutoff_A = number("cutoff_A", cutoff_A)
        switch_A = SWITCHED * cutoff_A if switch_A is None else number("switch_A", switch_A)
        self._pairs = NearPairs(self.atoms, cutoff_A=cutoff_A, switch_A=switch_A)
        self.terms.append(InternalTerm(self._pairs, self._pair))

    def table(self) -> dict[str, Any]:
        """All of the model as it is written to a file, with the present values."""
        return {
            "form": self.form,
            "element": self.element,
            **{name: getattr(self, name).item() for name in self._fitted},
            **self._constants,
            "cutoff_A": self._pairs.cutoff_A,
            "switch_A": self._pairs.switch_A,
        }

    @classmethod
    def from_table(cls, table: Mapping[str, Any], numbers: Sequence[int]) -> "PairModel":
        """Make the model of a `table`."""
        values = dict(table)
        form, element = values.pop("form"), values.pop("element", None)
        lengths = {name: values.pop(name) for name in ("cutoff_A", "switch_A") if name in values}
        if "cutoff_A" not in lengths:
            raise UserError(f"{form} lacks cutoff_A: give it in Å.")
        model = cls(form, numbers, values, **lengths)
        require_element(model.element, element, form)
        return model

    def _pair(self, r: Tensor, kinds: Tensor, order: int) -> tuple[Tensor, ...]:
        values = {name: getattr(self, name) for name in self._fitted}
        return self._form.function(r, order, **values, **self._constants)


def only_element(numbers: Sequence[int], form: str) -> str:
    """Return the symbol of the only element.

    Raises
    ------
    UserError
        If there are several.
    """
    symbols = sorted({chemical_symbols[int(z)] for z in numbers})
    if len(symbols) != 1:
        raise UserError(
            f"{form} is for atoms of one element, but there are {', '.join(symbols) or 'none'}: "
            "use a molecular force field for several."
        )
    return symbols[0]


def require_element(here: str, said: Any, form: str) -> None:
    """Raise a `UserError` if a file is for another element than the atoms."""
    if said != here:
        raise UserError(
            f"the file has a {form} model with element={said!r}, but the atoms are {here}: give "
            "the file of a model for them."
        )


def lennard_jones(
    numbers: Sequence[int],
    *,
    epsilon_eV: float,
    sigma_A: float,
    cutoff_A: float,
    switch_A: float | None = None,
) -> PairModel:
    """Make a model of Lennard-Jones atoms; see `PairModel` and `forms.lennard_jones`."""
    values = {"epsilon_eV": epsilon_eV, "sigma_A": sigma_A}
    return PairModel("lennard-jones", numbers, values, cutoff_A=cutoff_A, switch_A=switch_A)
