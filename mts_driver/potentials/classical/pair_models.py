"""Atoms of one kind with a van der Waals function between all pairs."""

from collections.abc import Mapping

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
    atoms : int
        N.
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
        If the form is not known, or a number is missing, unknown or out of its range.
    """

    def __init__(
        self,
        form: str,
        atoms: int,
        values: Mapping[str, float],
        *,
        cutoff_A: float,
        switch_A: float | None = None,
    ) -> None:
        if form not in FORMS:
            raise UserError(f"form={form!r} is not known: use {', '.join(FORMS)}.")
        self.form, self._form = form, FORMS[form]
        values = {**self._form.shared, **values}
        fitted = [*self._form.of_types, *self._form.shared]
        check_names(values, [*fitted, *self._form.constants], what=form)
        cutoff_A = number("cutoff_A", cutoff_A)
        switch_A = SWITCHED * cutoff_A if switch_A is None else switch_A
        super().__init__(atoms)
        self._fitted = fitted
        for name in fitted:
            self.register_parameter(name, parameter(name, values[name]))
        self._constants = {name: number(name, values[name]) for name in self._form.constants}
        self.pairs = NearPairs(atoms, cutoff_A=cutoff_A, switch_A=switch_A)
        self.terms.append(InternalTerm(self.pairs, self._pair))

    def _pair(self, r: Tensor, kinds: Tensor, order: int) -> tuple[Tensor, ...]:
        values = {name: getattr(self, name) for name in self._fitted}
        return self._form.function(r, order, **values, **self._constants)


def lennard_jones(
    atoms: int,
    *,
    epsilon_eV: float,
    sigma_A: float,
    cutoff_A: float,
    switch_A: float | None = None,
) -> PairModel:
    """Make a model of N Lennard-Jones atoms; see `PairModel` and `forms.lennard_jones`."""
    values = {"epsilon_eV": epsilon_eV, "sigma_A": sigma_A}
    return PairModel("lennard-jones", atoms, values, cutoff_A=cutoff_A, switch_A=switch_A)
