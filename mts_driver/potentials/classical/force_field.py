"""A force field of molecules: bonds, angles, charges, and van der Waals energies of sites."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations_with_replacement

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from mts_driver.errors import UserError
from mts_driver.potentials.classical.forms import FORMS, Function, cut, damped_coulomb
from mts_driver.potentials.classical.pairs import NearPairs
from mts_driver.potentials.classical.potential import ClassicalPotential
from mts_driver.potentials.classical.terms import Energies, Groups, Term

BONDED = {"bonds": ("k_eV_A2", "length_A"), "angles": ("k_eV_rad2", "angle_deg")}


@dataclass(frozen=True)
class Molecule:
    """Sites of a molecule, and what holds them together.

    Attributes
    ----------
    sites : tuple of str
        Names of kinds, in the order of the atoms.
    bonds : tuple of (int, int, str)
        Atoms and the name of a kind of bond.
    angles : tuple of (int, int, int, str)
        Atoms, the second in the middle, and the name of a kind of angle.
    """

    sites: tuple[str, ...]
    bonds: tuple[tuple[int, int, str], ...] = ()
    angles: tuple[tuple[int, int, int, str], ...] = ()


@dataclass(frozen=True)
class ForceFieldSpec:
    """All of a force field but the atoms; what `mts_driver.potentials.classical.file` reads.

    Attributes
    ----------
    form : str
        Of the van der Waals energy; see `mts_driver.potentials.classical.forms`.
    cutoff_A, damping_A : float
        Of pairs, Å, and of charges, 1/Å.
    elements : dict of str to str
        Of every kind of site.
    parameters : dict of str to float
        By ``KIND_parameter``: those of sites (``OW_epsilon_eV``, ``HW_charge_e``), of bonds
        (``OH_k_eV_A2``, ``OH_length_A``), of angles (``HOH_k_eV_rad2``, ``HOH_angle_deg``), and
        those that all sites share (``softness``).
    molecules : tuple of Molecule
        Those that a system may be made of. In each, one kind of site may have no charge of its own:
        it makes the molecule neutral.
    trained : tuple of str
        Names of the parameters that a fit changes where it is not told which.
    """

    form: str
    cutoff_A: float
    elements: dict[str, str]
    parameters: dict[str, float]
    molecules: tuple[Molecule, ...]
    damping_A: float = 0.2
    trained: tuple[str, ...] = field(default=())


class ForceField(ClassicalPotential):
    """A force field bound to atoms.

    Energies are ½k(r − r₀)² of bonds, ½k(θ − θ₀)² of angles, a van der Waals form between sites
    that have its parameters, and damped charges; the last two not within a molecule. Kinds are
    mixed by Lorentz and Berthelot.

    Parameters
    ----------
    spec : ForceFieldSpec
        The force field.
    numbers : sequence of int, length N
        Atomic numbers; molecules follow one another, atoms in the order of their sites.

    Raises
    ------
    UserError
        If the atoms are not such molecules, or the force field is not complete.
    """

    def __init__(self, spec: ForceFieldSpec, numbers: Sequence[int]) -> None:
        super().__init__(numbers)
        self.spec = spec
        check(spec)
        values = {
            name: nn.Parameter(torch.tensor(float(value), dtype=torch.float64))
            for name, value in spec.parameters.items()
        }
        self.values = nn.ParameterDict(values)
        placed = _placed(spec, self.numbers)
        self._sites = [site for molecule, _ in placed for site in molecule.sites]
        self._kinds = list(dict.fromkeys(self._sites))
        kind = torch.tensor([self._kinds.index(site) for site in self._sites])
        self._kind: Tensor
        self.register_buffer("_kind", kind, persistent=False)
        self._molecules = list(dict.fromkeys(molecule for molecule, _ in placed))
        excluded = {
            (start + a, start + b)
            for molecule, start in placed
            for b in range(len(molecule.sites))
            for a in range(b)
        }
        self._pairs = NearPairs(spec.cutoff_A, excluded)
        self._bonds = _bonded(placed, "bonds")
        self._angles = _bonded(placed, "angles")

    def terms(self, x: Tensor, cells: Tensor) -> list[Term]:
        """See `ClassicalPotential.terms`."""
        groups = self._pairs(x, cells)
        found = [*self._van_der_waals(groups), *self._charges(groups)]
        for kind, atoms in self._bonds.items():
            found.append(Term(_static(atoms, x, cells), self._bond(kind), radial=True))
        for kind, atoms in self._angles.items():
            found.append(Term(_static(atoms, x, cells), self._angle(kind)))
        return found

    def charges_e(self) -> dict[str, Tensor]:
        """Charge of every kind of site, e."""
        found = {
            kind: self.values[f"{kind}_charge_e"]
            for kind in self.spec.elements
            if f"{kind}_charge_e" in self.values
        }
        for molecule in self.spec.molecules:
            left = [site for site in molecule.sites if site not in found]
            if left and found:
                others = sum(
                    (found[s] for s in molecule.sites if s in found), torch.zeros(()).double()
                )
                found[left[0]] = -others / len(left)
        return found

    def _van_der_waals(self, groups: Groups) -> list[Term]:
        form, cutoff = FORMS[self.spec.form], self.spec.cutoff_A
        shared = {name: self.values[name] for name in form.shared}
        active = [k for k in self._kinds if all(f"{k}_{p}" in self.values for p in form.mixing)]
        n = len(self._sites)
        first, second = (self._kind[a % n] for a in (groups.center, groups.around[:, 0]))
        found = []
        for a, b in combinations_with_replacement(active, 2):
            p, q = self._kinds.index(a), self._kinds.index(b)
            chosen = ((first == p) & (second == q)) | ((first == q) & (second == p))
            mixed = {
                name: mix(self.values[f"{a}_{name}"], self.values[f"{b}_{name}"])
                if a != b
                else self.values[f"{a}_{name}"]
                for name, mix in form.mixing.items()
            }
            here = chosen.nonzero().squeeze(1)
            energies = partial(_van_der_waals, form.function, cutoff, {**mixed, **shared})
            found.append(Term(Groups(*(t[here] for t in groups)), energies, radial=True))
        return found

    def _charges(self, groups: Groups) -> list[Term]:
        charges = self.charges_e()
        if not charges:
            return []
        zero = torch.zeros(()).double()
        by_kind = torch.stack([charges.get(kind, zero) for kind in self._kinds])
        n, spec = len(self._sites), self.spec
        i, j = (self._kind[a % n] for a in (groups.center, groups.around[:, 0]))
        table = torch.outer(by_kind, by_kind).flatten()
        pair = i * len(self._kinds) + j

        def energies(r: Tensor) -> Tensor:
            return damped_coulomb(r, table[pair].to(r), spec.damping_A, spec.cutoff_A)

        return [Term(groups, energies, radial=True)]

    def _bond(self, kind: str) -> Energies:
        k, length = (self.values[f"{kind}_{name}"] for name in BONDED["bonds"])
        return lambda r: 0.5 * k * (r - length) ** 2

    def _angle(self, kind: str) -> Energies:
        k, angle = (self.values[f"{kind}_{name}"] for name in BONDED["angles"])

        def energies(v: Tensor) -> Tensor:
            a, b = v.unbind(1)
            # of both, atan2 is exact near 180° too
            theta = torch.atan2(torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(-1))
            return 0.5 * k * (theta - torch.deg2rad(angle)) ** 2

        return energies


def _van_der_waals(
    function: Function, cutoff_A: float, given: dict[str, Tensor], r: Tensor
) -> Tensor:
    return function(r, **given) * cut(r, cutoff_A)


def check(spec: ForceFieldSpec) -> None:
    """Raise a `UserError` where a force field is not complete."""
    if spec.form not in FORMS:
        raise UserError(f"form={spec.form!r} is not known: use {', '.join(FORMS)}.")
    if not spec.cutoff_A > 0 or not spec.damping_A >= 0:
        raise UserError(
            f"cutoff_A={spec.cutoff_A}, damping_A={spec.damping_A}: give a positive cutoff, and a "
            "damping of at least 0."
        )
    form = FORMS[spec.form]
    needed = set(form.shared)
    for molecule in spec.molecules:
        needed |= {f"{k}_{p}" for *_, k in molecule.bonds for p in BONDED["bonds"]}
        needed |= {f"{k}_{p}" for *_, k in molecule.angles for p in BONDED["angles"]}
        for site in molecule.sites:
            if site not in spec.elements:
                raise UserError(f"site {site!r} of a molecule has no element: add it to elements.")
        own = {s for s in molecule.sites if f"{s}_charge_e" not in spec.parameters}
        if len(own) > 1 and len(own) < len(set(molecule.sites)):
            raise UserError(
                f"sites {', '.join(sorted(own))} have no charge: give all but one in a molecule."
            )
    for site in spec.elements:
        some = {f"{site}_{p}" for p in form.mixing}
        if some & set(spec.parameters):
            needed |= some
    allowed = needed | {f"{site}_charge_e" for site in spec.elements}
    if missing := sorted(needed - set(spec.parameters)):
        raise UserError(f"parameters lack {', '.join(missing)}, which {spec.form} needs.")
    if unknown := sorted(set(spec.parameters) - allowed):
        raise UserError(
            f"parameters {', '.join(unknown)} are not known: {spec.form} has "
            f"{', '.join((*form.mixing, *form.shared))} and charge_e of sites."
        )
    if unknown := sorted(set(spec.trained) - set(spec.parameters)):
        raise UserError(f"trained={', '.join(unknown)}: there is no such parameter.")


def _placed(spec: ForceFieldSpec, numbers: np.ndarray) -> list[tuple[Molecule, int]]:
    """Cut the atoms into molecules, the longest that fits first, going back where one is wrong."""
    symbols = [chemical_symbols[z] for z in numbers]
    templates = [
        (molecule, [spec.elements[site] for site in molecule.sites])
        for molecule in sorted(spec.molecules, key=lambda m: -len(m.sites))
    ]
    farthest, start, tried = 0, 0, [0]
    placed: list[tuple[Molecule, int]] = []
    while start < len(symbols):
        for k in range(tried[-1], len(templates)):
            molecule, elements = templates[k]
            if symbols[start : start + len(elements)] == elements:
                tried[-1] = k + 1
                placed.append((molecule, start))
                start += len(elements)
                tried.append(0)
                break
        else:
            farthest = max(farthest, start)
            tried.pop()
            if not placed:
                names = "; ".join(" ".join(elements) for _, elements in templates)
                raise UserError(
                    f"atom {farthest} ({symbols[farthest]}) begins no molecule of the force field, "
                    f"which has {names}: put the atoms of each molecule in this order, one "
                    "molecule after the other."
                )
            start = placed.pop()[1]
    return placed


def _bonded(placed: list[tuple[Molecule, int]], what: str) -> dict[str, np.ndarray]:
    """Atoms of all bonds or angles by their kind; the center first."""
    found: dict[str, list[list[int]]] = {}
    for molecule, start in placed:
        for *atoms, kind in getattr(molecule, what):
            middle = [atoms[1], atoms[0], *atoms[2:]] if what == "angles" else atoms
            found.setdefault(kind, []).append([start + a for a in middle])
    return {kind: np.array(atoms) for kind, atoms in found.items()}


def _static(atoms: np.ndarray, x: Tensor, cells: Tensor) -> Groups:
    """Return groups of the same atoms (M, 1 + k) in all replicas, nearest images."""
    replicas, n = x.shape[:2]
    index = torch.from_numpy(atoms)
    center, around = index[:, 0], index[:, 1:]
    offset = n * torch.arange(replicas)
    apart = (x[:, around] - x[:, center][:, :, None]).detach()
    shifts = torch.zeros_like(apart)
    if bool(cells.any()):
        inverse = torch.linalg.inv(cells.detach())
        images = -torch.einsum("rmka,rab->rmkb", apart, inverse).round()
        shifts = torch.einsum("rmka,rab->rmkb", images, cells)
    return Groups(
        (center + offset[:, None]).flatten(),
        (around + offset[:, None, None]).flatten(0, 1),
        shifts.flatten(0, 1),
        torch.arange(replicas).repeat_interleave(len(center)),
    )
