"""Any ASE calculator as a potential: ``ase:MODULE:CALLABLE?key=value&key=value``."""

import ast
import importlib
import math
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from mts_driver.errors import UserError
from mts_driver.potentials.arrays import ArrayPotential, Arrays


class AsePotential(ArrayPotential):
    """An ASE calculator behind the interface of the package's own potentials.

    Parameters
    ----------
    calculator : ase.calculators.calculator.Calculator
        Any calculator that gives energies and forces.
    numbers : sequence of int, length N
        Atomic numbers.
    name : str
        How to call it in messages.
    info : mapping, optional
        What ``info`` of the atoms holds that the calculator is asked about, such as a charge.

    Notes
    -----
    The virial is minus the volume times the stress. A calculator without a stress, or with one that
    fails or is always zero, gets a virial of **zeros** (i-PI cannot take NaN) and says so once on
    stderr: pressures are then meaningless, and constant pressure is refused. Replicas are evaluated
    one after the other, in float64.

    Every evaluation starts from a calculator that has been reset. Many start their self-consistent
    field from the density of the last one: forces would then depend on the frames before, a
    restarted run would leave the uninterrupted one, and a failure would spoil the frame after it.
    """

    def __init__(
        self,
        calculator: Any,
        numbers: Sequence[int],
        *,
        name: str = "ase",
        info: Mapping[str, Any] | None = None,
    ) -> None:
        self.calculator = calculator
        self._info = dict(info or {})
        self.numbers = np.asarray(numbers, int)
        self.name = name
        self.has_virial: bool | None = None  # until a periodic structure has been evaluated
        if "forces" not in getattr(calculator, "implemented_properties", ["forces"]):
            raise UserError(
                f"potential {name!r} gives no forces (it offers "
                f"{', '.join(calculator.implemented_properties)}): use another calculator."
            )

    @classmethod
    def from_spec(cls, spec: str, numbers: Sequence[int]) -> "AsePotential":
        """Build the calculator that ``MODULE:CALLABLE?key=value&key=value`` names.

        Raises
        ------
        UserError
            As `make_calculator` does.
        """
        calculator, _ = make_calculator(spec)
        return cls(calculator, numbers, name=f"ase:{spec}")

    def evaluate(self, positions_A: np.ndarray, cells_A: np.ndarray) -> Arrays:
        """Evaluate replicas one after the other; see `ArrayPotential.evaluate`.

        Raises
        ------
        UserError
            If the calculator fails, for example because it does not know an element.
        """
        found = [self._evaluate(*pair) for pair in zip(positions_A, cells_A, strict=True)]
        energies, forces, virials = (np.array(one, float) for one in zip(*found, strict=True))
        return energies, forces, virials

    def _evaluate(
        self, positions: np.ndarray, cell: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray]:
        periodic = bool(np.any(cell))
        atoms = Atoms(self.numbers, positions, cell=cell, pbc=periodic, info=self._info)
        energy, forces = self._ask(atoms, Atoms.get_potential_energy)
        return float(energy), forces, self._virial(atoms, forces) if periodic else np.zeros((3, 3))

    def _ask(self, atoms: Atoms, energy_of: Callable[[Atoms], Any]) -> tuple[Any, np.ndarray]:
        """Return an energy, or several, and forces of atoms, from a calculator that was reset."""
        if hasattr(self.calculator, "reset"):
            self.calculator.reset()
        try:
            atoms.calc = self.calculator
            return energy_of(atoms), np.asarray(atoms.get_forces())
        except PropertyNotImplementedError as error:
            raise UserError(
                f"potential {self.name!r} gives no energies or forces for these atoms "
                f"({error}): use another calculator."
            ) from error
        except Exception as error:
            elements = ", ".join(sorted(set(atoms.get_chemical_symbols())))
            raise UserError(
                f"potential {self.name!r} failed for {len(atoms)} atoms of {elements}: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _virial(self, atoms: Atoms, forces: np.ndarray) -> np.ndarray:
        if self.has_virial is False:
            return np.zeros((3, 3))
        try:
            virial = np.asarray(-atoms.get_volume() * atoms.get_stress(voigt=False))
            reason = "" if virial.any() or not forces.any() else "a stress of zeros beside forces"
        except (NotImplementedError, PropertyNotImplementedError):
            virial, reason = np.zeros((3, 3)), "no stress"
        except Exception as error:
            if self.has_virial:
                raise UserError(
                    f"potential {self.name!r} failed to give a stress: {type(error).__name__}: "
                    f"{error}"
                ) from error
            virial, reason = np.zeros((3, 3)), f"no stress ({type(error).__name__}: {error})"
        if not reason:
            self.has_virial = True
        elif not self.has_virial:
            self.has_virial = False
            print(
                f"{self.name} offers {reason}: virials are sent as zeros, so pressures are "
                "meaningless and constant-pressure runs are refused.",
                file=sys.stderr,
            )
        return virial


def make_calculator(spec: str) -> tuple[Any, float | None]:
    """Build the calculator that ``MODULE:CALLABLE?key=value&key=value`` names.

    Values are Python literals; anything else is taken as text. ``receptive_field_A`` is not for the
    callable: it says within how many Å atoms matter to an atomic energy, and is returned, or None.

    Raises
    ------
    UserError
        If the module or callable does not exist, or the callable fails with the arguments.
    """
    target, _, query = spec.partition("?")
    module_name, colon, attribute = target.partition(":")
    if not colon or not attribute or not module_name:
        raise UserError(
            f"potential 'ase:{spec}' is incomplete: write ase:MODULE:CALLABLE?key=value, such "
            "as ase:ase.calculators.emt:EMT."
        )
    arguments = _parse_arguments(query, spec)
    reach_A = _receptive_field(arguments, spec)
    if "" not in sys.path:
        sys.path.append("")  # a module beside the input, after all installed ones
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(
            f"potential 'ase:{spec}': cannot import {module_name!r} ({error}): install it, or "
            "set PYTHONPATH to where it lies."
        ) from error
    try:
        factory = getattr(module, attribute)
    except AttributeError as error:
        raise UserError(
            f"potential 'ase:{spec}': module {module_name!r} has no {attribute!r}: correct the "
            "name after the second colon."
        ) from error
    try:
        calculator = factory(**arguments)
    except Exception as error:
        raise UserError(
            f"potential 'ase:{spec}': {attribute}(...) rejects {arguments or 'no arguments'}: "
            f"{type(error).__name__}: {error}. Correct the part after '?'."
        ) from error
    if not hasattr(calculator, "get_property"):
        raise UserError(
            f"potential 'ase:{spec}': {attribute!r} makes a {type(calculator).__name__}, which "
            "is no ASE calculator: name a calculator class or a function that returns one."
        )
    return calculator, reach_A


def module_here(spec: str) -> Path | None:
    """Return the file of a module that only a process in the working folder finds.

    Parameters
    ----------
    spec : str
        Of a model that has been loaded; None is returned for others than ``ase:MODULE:...``.

    Raises
    ------
    UserError
        If it is a folder, which other processes would have to be told of.
    """
    kind, _, rest = spec.partition(":")
    name = rest.partition(":")[0].partition(".")[0]
    file = getattr(sys.modules.get(name), "__file__", None) if kind == "ase" else None
    told = map(Path, filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    here = Path.cwd()
    if file is None or here in [path.resolve() for path in told]:
        return None
    found = Path(file).resolve()
    if found.name == "__init__.py" and found.parent.parent == here:
        raise UserError(
            f"potential {spec!r} is in the package {name!r} of this folder, which the drivers of a "
            f"run do not see: set PYTHONPATH={here} for this command and for `mts run`, or install "
            "the package."
        )
    return found if found.parent == here else None


_PARSER = threading.Lock()
"""Python's own parser fails now and then where several threads are in it (3.11)."""


def _parse_arguments(query: str, spec: str) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for item in filter(None, query.split("&")):
        key, equals, value = item.partition("=")
        if not equals or not key.isidentifier():
            raise UserError(
                f"potential 'ase:{spec}': {item!r} is not key=value: separate arguments with '&', "
                "such as ?rc=6.0&width=1.0."
            )
        try:
            with _PARSER:
                arguments[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            arguments[key] = value
    return arguments


def _receptive_field(arguments: dict[str, Any], spec: str) -> float | None:
    if "receptive_field_A" not in arguments:
        return None
    value = arguments.pop("receptive_field_A")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UserError(
            f"potential 'ase:{spec}': receptive_field_A={value} cannot be: give a finite number of "
            "Å above 0."
        )
    return float(value)
