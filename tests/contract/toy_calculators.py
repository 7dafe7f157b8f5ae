"""Calculators that cost nothing; copied beside the inputs of the contract tests."""

import time
from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator, all_changes


def pass_gate(gate):
    """Wait until a test (running.Gate) lets this call through; a gate that is gone is open."""
    while gate.is_dir():
        try:
            (gate / "go").unlink()
            return
        except FileNotFoundError:
            time.sleep(0.01)


class ToyWater(Calculator):
    """Harmonic O-H and H-H springs and a weak pull to the origin; O, H, H repeated."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE's own type)

    def __init__(self, scale=1.0, gate="", nan_after=0, fail=False):
        super().__init__()
        if fail:
            raise ValueError("fail=True")
        self.scale, self.gate, self.nan_after, self.calls = scale, gate, nan_after, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.gate:
            pass_gate(Path(self.gate))
        self.calls += 1
        x = self.atoms.positions
        forces = -0.01 * x
        energy = 0.005 * (x**2).sum()
        springs = ((0, 1, 50 * self.scale, 0.96), (0, 2, 50 * self.scale, 0.96), (1, 2, 5.0, 1.5))
        for i, j, k, length in springs:
            d = x[j::3] - x[i::3]
            r = np.linalg.norm(d, axis=1)
            pull = (k * (r - length) / r)[:, None] * d
            forces[i::3] += pull
            forces[j::3] -= pull
            energy += 0.5 * k * ((r - length) ** 2).sum()
        if self.nan_after and self.calls > self.nan_after:
            forces[0] = np.nan
        self.results = {"energy": float(energy), "forces": forces}


class FailingStress(ToyWater):
    """Promises a stress, and fails where it is asked for it."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012 (ASE's own type)
    good = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if "stress" in properties:
            if self.good == 0:
                raise RuntimeError("no stress on this device")
            type(self).good -= 1
            self.results["stress"] = np.ones(6)


class ZeroStress(ToyWater):
    """Has a stress of zeros, for programs that ask for one."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012 (ASE's own type)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["stress"] = np.zeros(6)


class NoForces(Calculator):
    """Energies only."""

    implemented_properties = ["energy"]  # noqa: RUF012 (ASE's own type)


def not_a_calculator():
    """Return something else."""
    return 1
