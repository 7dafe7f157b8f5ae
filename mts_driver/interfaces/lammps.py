"""LAMMPS: our potentials as forces of its dynamics, by its ``fix external``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase.data import atomic_masses, atomic_numbers

from integrators.state import Potential
from mts_driver.errors import UserError
from mts_driver.potentials.load import load_potential

LIGHTEST, HEAVIEST = 0.2, 4.5
"""Masses of an element, over its usual one: isotopes and mass that hydrogens got from others."""


class Forces:
    """A potential that adds its forces to those of LAMMPS's own styles; made by `add_forces`.

    Attributes
    ----------
    calls : int
        Evaluations so far.
    """

    def __init__(self, lmp: Any, potential: Potential, fix: str, periodic: bool) -> None:
        self._lmp, self._potential, self._fix, self._periodic = lmp, potential, fix, periodic
        self._atoms = int(lmp.get_natoms())
        self._failure: BaseException | None = None
        self.calls = 0
        lmp.set_fix_external_callback(fix, self._answer)

    def run(self, steps: int) -> None:
        """Take time steps, as the command ``run`` does.

        Raises
        ------
        UserError
            If the potential cannot be evaluated, whose reason LAMMPS itself cannot hear, or the
            forces would be ignored.
        """
        _refuse_respa(self._lmp)
        self._failure = None
        try:
            self._lmp.command(f"run {steps}")
        finally:
            if self._failure is not None:
                raise self._failure

    def _answer(
        self, _: object, step: int, count: int, tag: np.ndarray, x: np.ndarray, f: np.ndarray
    ) -> None:
        """Evaluate atoms, which LAMMPS sorts as it likes; nothing may be raised from here."""
        try:
            if count != self._atoms:
                raise UserError(
                    f"step {step}: LAMMPS has {count} atoms where {self._atoms} were bound: do not "
                    "lose, delete or create atoms, or call add_forces again."
                )
            order = np.argsort(tag)
            found = self._potential(
                torch.tensor(x[order]), torch.from_numpy(cell_of(self._lmp, self._periodic))
            )
            forces = found.forces.detach().cpu().double().numpy()
            if not np.isfinite(forces).all():
                raise UserError(
                    f"the potential returned forces that are not finite at step {step}: the "
                    "trajectory has blown up. Use a shorter timestep, or a better model."
                )
            f[order] = forces
            virial = found.virial.detach().cpu().double().numpy()
            self._lmp.fix_external_set_energy_global(self._fix, float(found.energy))
            # xx, yy, zz, xy, xz, yz
            self._lmp.fix_external_set_virial_global(self._fix, virial.flat[[0, 4, 8, 1, 2, 5]])
            self.calls += 1
        except BaseException as error:
            # LAMMPS stops at once at coordinates that are no numbers
            f[:] = np.nan
            if self._failure is None:
                self._failure = error
                print(f"error: {error}", file=sys.stderr, flush=True)


def add_forces(
    lmp: Any,
    model: str | Potential,
    elements: Sequence[str],
    *,
    fix: str = "mts",
    device: str = "cpu",
    dtype: str = "float32",
) -> Forces:
    """Have a model give LAMMPS its forces, energy and virial, in addition to LAMMPS's own styles.

    Parameters
    ----------
    lmp : lammps.lammps
        With ``units metal`` and all atoms, of one process, and ``pair_style zero`` or none where
        the model is all there is. Atoms may be in any order, wrapped or not; cells may be triclinic
        and may change.
    model : str or Potential
        A specification such as ``so3lr`` or ``student:water``, see `mts_driver.load_potential`, or
        a potential bound to the atoms in the order of their IDs.
    elements : sequence of str
        Symbols of LAMMPS's atom types, from type 1 on.
    fix : str
        ID of the ``fix external`` that is made.
    device, dtype : str
        Of a model that is loaded here.

    Returns
    -------
    Forces
        Take steps with its ``run``, which raises what goes wrong in the model.

    Raises
    ------
    UserError
        If the units are others, elements do not fit types or their masses, IDs have gaps, LAMMPS
        runs on several processes or with ``run_style respa``, or the box is periodic along some of
        its sides only.

    Notes
    -----
    Single time steps. ``run_style respa`` ignores ``fix external`` without a word.
    """
    units = lmp.extract_global("units")
    if units != "metal":
        raise UserError(f"LAMMPS has units {units}: models give eV and Å, use `units metal`.")
    processes = lmp.extract_setting("world_size")
    if processes > 1:
        raise UserError(
            f"LAMMPS runs on {processes} processes, where a model sees all atoms: start it on one."
        )
    _refuse_respa(lmp)
    periodicity = lmp.extract_box()[5]
    if len(set(periodicity)) > 1:
        raise UserError(
            f"the box is periodic along some of its sides only ({periodicity}): use `boundary p p "
            "p`, or `boundary f f f` for an isolated molecule."
        )
    numbers = _numbers(lmp, elements)
    if isinstance(model, str):
        model = load_potential(model, numbers.tolist(), device=device, dtype=dtype)
    else:
        _require_fit(model, numbers)
    lmp.command(f"fix {fix} all external pf/callback 1 1")
    lmp.command(f"fix_modify {fix} energy yes virial yes")
    return Forces(lmp, model, fix, bool(periodicity[0]))


def cell_of(lmp: Any, periodic: bool = True) -> np.ndarray:
    """Return LAMMPS's box, rows are lattice vectors, Å, shape (3, 3); zeros if not periodic."""
    low, high, xy, yz, xz, *_ = lmp.extract_box()
    lx, ly, lz = np.subtract(high, low)
    return np.array([[lx, 0, 0], [xy, ly, 0], [xz, yz, lz]]) * periodic


def _numbers(lmp: Any, elements: Sequence[str]) -> np.ndarray:
    """Atomic numbers in the order of IDs."""
    count, types = int(lmp.get_natoms()), lmp.extract_setting("ntypes")
    unknown = [one for one in elements if one not in atomic_numbers or one == "X"]
    if unknown or len(elements) != types:
        what = f"{unknown[0]!r} is no element" if unknown else f"LAMMPS has {types} atom type(s)"
        raise UserError(
            f"elements={list(elements)!r}: {what}: give the symbol of each type, such as "
            "['O', 'H']."
        )
    if count == 0:
        raise UserError("LAMMPS has no atoms: call add_forces after read_data or create_atoms.")
    tags = lmp.numpy.extract_atom("id")[:count]
    if not np.array_equal(np.sort(tags), np.arange(1, count + 1)):
        raise UserError(
            f"the IDs of LAMMPS's {count} atoms are not 1 to {count}: `reset_atoms id` numbers "
            "them anew."
        )
    of_atoms = lmp.numpy.extract_atom("type")[:count][np.argsort(tags)]
    by_type = np.array([atomic_numbers[one] for one in elements])
    _check_masses(lmp, elements, by_type)
    found: np.ndarray = by_type[of_atoms - 1]
    return found


def _require_fit(potential: Potential, numbers: np.ndarray) -> None:
    """Refuse a potential that was bound to other atoms, as far as it can be told."""
    bound = getattr(potential, "numbers", None)
    if bound is not None and not np.array_equal(bound, numbers):
        raise UserError(
            f"model, {type(potential).__name__}, is bound to {len(bound)} other atoms or another "
            f"order than LAMMPS's {len(numbers)}: bind it to the atoms in the order of their IDs."
        )


def _check_masses(lmp: Any, elements: Sequence[str], numbers: np.ndarray) -> None:
    """Refuse elements that were given for the types of others."""
    masses = lmp.numpy.extract_atom("mass")
    if masses is None:  # of an atom style with a mass for each atom
        return
    for k, (element, number) in enumerate(zip(elements, numbers, strict=True), start=1):
        mass = float(np.ravel(masses)[k])
        if not LIGHTEST < mass / atomic_masses[number] < HEAVIEST:
            raise UserError(
                f"elements={list(elements)!r}: type {k} has a mass of {mass:g} Da, which "
                f"{element} never has: give the symbols in the order of the types, or correct "
                "`mass`."
            )


def _refuse_respa(lmp: Any) -> None:
    if (lmp.extract_global("respa_levels") or 0) > 0:
        raise UserError(
            "LAMMPS has run_style respa, which ignores `fix external` without a word: use "
            "`run_style verlet`, and for several time steps LAMMPS as a driver (`fix ipi`)."
        )
