"""Averages over a trajectory that are summed up while it runs, so that no frame has to be kept."""

import math
from collections import Counter
from typing import Any

import numpy as np
import torch
from ase import Atoms

from integrators.levels import FULL
from integrators.splitting import FAST, Operation
from integrators.state import MDState
from integrators.thermometer import Thermometer
from mts_driver.analysis.statistics import block_average
from mts_driver.structures.bond_changes import BondLengths, NewBonds
from mts_driver.structures.bonds import kind_of
from mts_driver.structures.fixed import moving_atoms
from mts_driver.structures.solutes import force_groups, temperature_groups

BLOCKS = 20
SKIPPED = 0.1
"""Share of a run that temperatures and energies leave out, since its velocities are fresh."""
BROKEN = 1.4
"""A heavy bond this many times as long as at the start is broken."""


class Tally:
    """Sums of temperatures, energies and force errors, the longest bonds, and new ones.

    Parameters
    ----------
    atoms : ase.Atoms
        The structure before anything was done with the student: its bonds are the reference.
    steps : int
        Outer steps of the run.
    labelled : bool
        Whether there is a teacher to compare with.
    lost_degrees : Tensor of shape (N,), optional
        Degrees of freedom that atoms have lost to distances that are held.

    Attributes
    ----------
    sums : dict of str to Tensor
        All that a restarted run has to know.
    """

    def __init__(
        self,
        atoms: Atoms,
        *,
        steps: int,
        labelled: bool,
        lost_degrees: torch.Tensor | None = None,
    ) -> None:
        groups = force_groups(atoms) if labelled else {}
        kinds = {name: torch.tensor(mask) for name, mask in temperature_groups(atoms).items()}
        moves = torch.tensor(moving_atoms(atoms))
        self._thermometer = Thermometer(kinds, moves, lost_degrees)
        self._counts = self._thermometer.atoms
        self._groups = groups
        self._labelled = labelled
        self._symbols = np.array(atoms.get_chemical_symbols())
        self._first = int(SKIPPED * steps) + 1
        self._averaged = steps - self._first + 1
        self._bonds, self._new_bonds = BondLengths(atoms), NewBonds(atoms)
        # total and count of every block
        shape = (2, min(BLOCKS, self._averaged))
        self.sums = {name: torch.zeros(shape, dtype=torch.float64) for name in (*self._counts, "U")}
        self.sums["square error"] = torch.zeros(len(self._groups), dtype=torch.float64)
        self.sums["frames"] = torch.zeros((), dtype=torch.int64)
        self.sums["longest"] = torch.zeros(len(self._bonds), dtype=torch.float64)
        self.sums["new bonds"] = torch.zeros((0, 2), dtype=torch.int64)

    def on_op(self, k: int, op: Operation, state: MDState) -> None:
        """Read the temperature behind every O."""
        self._thermometer(k, op, state)

    def end_step(self, step: int) -> None:
        """Add the temperatures of the outer step that has just ended; before anything is saved."""
        for name, temperature_K in self._thermometer.temperatures_K.items():
            self._add(name, step, temperature_K)
        self._thermometer.reset()

    def look(self, state: MDState) -> None:
        """Add the state after an outer step, or the first one, with all forces known."""
        self._add("U", state.step, state.evaluations[FULL].energy.cpu().item())
        if self._labelled:
            difference = state.evaluations[FULL].forces - state.evaluations[FAST].forces
            squares = difference.double().square().mean(-1).cpu()
            means = [squares[mask].mean() for mask in self._groups.values()]
            self.sums["square error"] += torch.stack(means)
            self.sums["frames"] += 1
        positions = state.positions.cpu().numpy()
        ratios = torch.tensor(self._bonds.ratios(positions))
        self.sums["longest"] = torch.maximum(self.sums["longest"], ratios)
        found = self._new_bonds.new(positions)
        if len(found):
            pairs = [self.sums["new bonds"], torch.tensor(found)]
            self.sums["new bonds"] = torch.cat(pairs).unique(dim=0)

    def _add(self, name: str, step: int, value: float) -> None:
        if step >= self._first:
            sums = self.sums[name]
            block = (step - self._first) * sums.shape[1] // self._averaged
            sums[:, block] += torch.tensor([value, 1.0], dtype=sums.dtype)

    def results(self) -> dict[str, Any]:
        """Return the averages with the keys of the report; what was never seen is None."""
        frames = int(self.sums["frames"])
        rmse = (self.sums["square error"] / max(frames, 1)).sqrt().tolist()
        new = self._symbols[self.sums["new bonds"].numpy()]
        longest, to_hydrogen = self.sums["longest"].numpy(), self._bonds.to_hydrogen
        return {
            "temperature_at_O_K": {
                name: mean and {**mean, "atoms": count}
                for name, count in self._counts.items()
                for mean in [self._mean(name)]
            },
            "mean_potential_energy_eV": self._mean("U"),
            "force_rmse_eV_A": dict(zip(self._groups, rmse, strict=True)) if frames else None,
            "longest_xh_bond_ratio": _largest(longest[to_hydrogen]),
            "longest_heavy_bond_ratio": _largest(longest[~to_hydrogen]),
            "broken_bonds": int((longest[~to_hydrogen] > BROKEN).sum()),
            "new_bonds": dict(Counter(kind_of(*pair) for pair in new).most_common()),
        }

    def _mean(self, name: str) -> dict[str, float | None] | None:
        """Mean over all steps, with the standard error from the scatter of the blocks."""
        total, count = self.sums[name]
        seen = count > 0
        if not bool(seen.any()):
            return None
        error = block_average((total / count)[seen].numpy()).stderr
        return {
            "mean": float(total.sum() / count.sum()),
            "stderr": None if math.isnan(error) else error,
        }


def _largest(ratios: np.ndarray) -> float | None:
    return float(ratios.max()) if len(ratios) else None
