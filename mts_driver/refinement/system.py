"""The atoms of a refinement, and what can be observed of them."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.formula import Formula
from torch import Tensor

from integrators.state import MDState
from mts_driver.errors import UserError
from mts_driver.refinement.goals import choices
from mts_driver.refinement.goals.goal import Observable
from mts_driver.refinement.observables.estimators.frames import longest_distance_A
from mts_driver.refinement.observables.estimators.kernel import CUT
from mts_driver.refinement.settings import RefineSettings
from mts_driver.simulation.thermal_state import thermal_state
from mts_driver.structures.bonds import molecules
from mts_driver.structures.files import fingerprint, read_structure
from mts_driver.structures.fixed import held_atoms
from mts_driver.structures.masses import hydrogen_bonds_to_heavy
from mts_driver.units import LIGHT_CM_FS

RDF_STEP_A = 0.05
RDF_FIRST_A = 0.5
RDF_LAST_A = 8.0
BOND_REACH_A = 0.25
SPECTRUM_LAST_CM = 4500.0
SPECTRUM_STEP_CM = 25.0


@dataclass(frozen=True, eq=False)
class System:
    """Atoms, their masses and molecules.

    Attributes
    ----------
    atoms : ase.Atoms
        As `read_structure` returns them.
    symbols : list of str
        Of all atoms.
    molecules : ndarray of int, shape (N,)
        Number of every atom's molecule.
    """

    atoms: Atoms
    symbols: list[str]
    molecules: np.ndarray

    @classmethod
    def read(cls, structure: Path, tell: Callable[[str], None]) -> "System":
        """Read a periodic structure whose atoms all move.

        Raises
        ------
        UserError
            If it is another one.
        """
        atoms = read_structure(structure, tell=tell)
        if len(held_atoms(atoms)):
            raise UserError(
                f"structure='{structure}' has atoms that are held in place: averages would be "
                "those of the others; leave the constraints out."
            )
        if not atoms.pbc.all():
            raise UserError(f"structure='{structure}' is not periodic: give it a cell.")
        return cls(atoms, atoms.get_chemical_symbols(), molecules(atoms))

    def fingerprint(self) -> str:
        """Return a digest of the atoms."""
        return fingerprint(self.atoms)

    def of_formula(self, formula: str) -> Tensor:
        """Return the atoms of all molecules of a formula, (M, atoms of one).

        Raises
        ------
        UserError
            If there is none; those that there are are named.
        """
        wanted = Formula(formula).count()
        found: dict[str, list[list[int]]] = {}
        for number in dict.fromkeys(self.molecules.tolist()):
            members = [k for k, m in enumerate(self.molecules) if m == number]
            have = Formula.from_list([self.symbols[k] for k in members])
            found.setdefault(have.format("hill"), []).append(members)
        for name, all_members in found.items():
            if Formula(name).count() == wanted:
                return torch.tensor(all_members)
        raise UserError(
            f"molecules of {formula!r} are not in the structure, which has {', '.join(found)}."
        )

    def start(self, settings: RefineSettings) -> MDState:
        """Return the atoms with thermal velocities, in as many replicas as are asked for."""
        return thermal_state(
            self.atoms,
            self.atoms.get_masses(),
            temperature_K=settings.temperature_K,
            seed=settings.seed,
            replicas=settings.replicas,
        )

    def radii_A(self, width_A: float = choices.RDF_WIDTH_A) -> Tensor:
        """Return the distances at which g(r) is looked at: up to 8 Å, or what the cell allows."""
        cell = torch.tensor(np.array(self.atoms.cell))
        last = min(RDF_LAST_A, longest_distance_A(cell) - CUT * width_A - 1e-6)
        return torch.arange(RDF_FIRST_A, last, RDF_STEP_A, dtype=torch.float64)

    def rdfs(self, *, thinned: int) -> list[Observable]:
        """g(r) between molecules of all pairs of elements of which there are two atoms."""
        counts = {e: self.symbols.count(e) for e in sorted(set(self.symbols), key=_heaviest_first)}
        apart = len(set(self.molecules)) < len(self.symbols)
        return [
            choices.rdf(
                *(self.symbols, a, b),
                r_A=self.radii_A(),
                molecules=self.molecules.tolist() if apart else None,
                thinned=thinned,
            )
            for a, b in combinations_with_replacement(counts, 2)
            if (a != b or counts[a] > 1) and self._between(a, b)
        ]

    def _between(self, a: str, b: str) -> bool:
        """Whether two atoms of these elements are in different molecules."""
        first, second = (
            {m for m, s in zip(self.molecules, self.symbols, strict=True) if s == e} for e in (a, b)
        )
        return len(first | second) > 1

    def bonds_to_hydrogen(self) -> dict[str, Tensor]:
        """Return X–H bonds by their kind, each (M, 2): hydrogen and heavy atom."""
        if "H" not in self.symbols:
            return {}
        pairs = torch.from_numpy(hydrogen_bonds_to_heavy(self.atoms))
        kinds = [f"{self.symbols[int(heavy)]}–H" for _, heavy in pairs]
        return {
            kind: pairs[[k for k, other in enumerate(kinds) if other == kind]]
            for kind in dict.fromkeys(kinds)
        }

    def bond_lengths(self, *, thinned: int) -> list[Observable]:
        """Distributions of the lengths of X–H bonds, around those of the structure."""
        found = []
        for kind, pairs in self.bonds_to_hydrogen().items():
            lengths = [self.atoms.get_distance(int(h), int(x), mic=True) for h, x in pairs]
            middle = float(np.mean(lengths))
            r = torch.arange(middle - BOND_REACH_A, middle + BOND_REACH_A, 0.01).double()
            found.append(choices.bonds(pairs, kind, r_A=r, thinned=thinned))
        return found

    def spectra(self, *, lag_fs: float, spacing_fs: float) -> list[Observable]:
        """Spectra of the velocities of hydrogens, or of all atoms where there are none.

        They end at 4,500 1/cm, or where snapshots ``spacing_fs`` apart cannot tell more.
        """
        name = "H" if "H" in self.symbols else "all atoms"
        chosen = [k for k, s in enumerate(self.symbols) if s == "H" or name != "H"]
        last = min(SPECTRUM_LAST_CM, 0.5 / (LIGHT_CM_FS * spacing_fs))
        last -= last % SPECTRUM_STEP_CM
        wavenumbers = torch.arange(0.0, last, SPECTRUM_STEP_CM, dtype=torch.float64)
        return [
            choices.vibrations(
                torch.tensor(chosen), name, wavenumbers_cm=wavenumbers, lag_fs=lag_fs
            )
        ]


def _heaviest_first(symbol: str) -> tuple[bool, str]:
    return symbol == "H", symbol
