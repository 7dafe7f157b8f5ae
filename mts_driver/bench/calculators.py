"""ASE calculators: what a user could run without this project, and our potentials as such."""

from collections.abc import Sequence
from typing import Any

from ase.calculators.calculator import Calculator

from mts_driver.interfaces.ase import PotentialCalculator
from mts_driver.potentials import load_potential
from mts_driver.potentials.ase import AsePotential

PACKAGED = "ase:mts_driver.bench.calculators:packaged_so3lr"


def packaged_so3lr(device: str = "cpu") -> Calculator:
    """Return the ASE calculator of ``so3krates-torch`` in float32 with its own settings."""
    from so3krates_torch.calculator.so3 import SO3LRCalculator

    return SO3LRCalculator(default_dtype="float32", device=device)


def packaged_spec(device: str) -> str:
    """Return the specification of that calculator on a device."""
    return PACKAGED if device == "cpu" else f"{PACKAGED}?device={device}"


def calculator_of(spec: str, numbers: Sequence[int], device: str) -> Any:
    """Return the calculator of any specification: the very one of ``ase:``, otherwise wrapped."""
    potential = load_potential(spec, numbers, device=device)
    if isinstance(potential, AsePotential):
        return potential.calculator
    return PotentialCalculator(potential)
