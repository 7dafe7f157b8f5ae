"""The observables that a fit may aim at, by the words of a chemist."""

from collections.abc import Sequence

import torch
from torch import Tensor

from integrators.reversible import Snapshots
from mts_driver.refinement.goals.goal import Observable, average
from mts_driver.refinement.observables.arguments import Energy
from mts_driver.refinement.observables.bond_lengths import bond_length_distribution
from mts_driver.refinement.observables.diffusion import (
    diffusion_coefficient,
    mean_squared_displacement,
)
from mts_driver.refinement.observables.elastic import elastic_constants
from mts_driver.refinement.observables.energies import (
    enthalpy_of_vaporisation,
    potential_energies,
)
from mts_driver.refinement.observables.rdf import RadialDistribution
from mts_driver.refinement.observables.selections import select
from mts_driver.refinement.observables.velocities import spectrum, velocity_autocorrelation

RDF_WIDTH_A = 0.05
BOND_WIDTH_A = 0.01


def rdf(
    symbols: Sequence[str],
    first: str,
    second: str,
    *,
    r_A: Tensor,
    molecules: Sequence[int] | None = None,
    width_A: float = RDF_WIDTH_A,
    thinned: int = 1,
) -> Observable:
    """g(r) of two elements between molecules, where these are given."""
    found = RadialDistribution(
        select(symbols, first),
        select(symbols, second),
        r_A=r_A,
        width_A=width_A,
        molecules=molecules,
    )
    return Observable(
        name=f"g(r) {first}–{second}",
        observe=lambda seen: average(found.of_each(seen), seen),
        x=r_A,
        x_label="r (Å)",
        thinned=thinned,
    )


def bonds(
    pairs: Tensor, name: str, *, r_A: Tensor, width_A: float = BOND_WIDTH_A, thinned: int = 1
) -> Observable:
    """Lengths of bonds, as a density."""

    def observe(seen: Snapshots) -> Tensor:
        return bond_length_distribution(seen, pairs, r_A=r_A, width_A=width_A)

    return Observable(
        name=f"lengths {name}", observe=observe, unit="1/Å", x=r_A, x_label="r (Å)", thinned=thinned
    )


def vibrations(atoms: Tensor, name: str, *, wavenumbers_cm: Tensor, lag_fs: float) -> Observable:
    """Spectrum of velocities, over their mean square, so that temperature does not enter."""

    def observe(seen: Snapshots) -> Tensor:
        found = velocity_autocorrelation(seen, atoms, longest_lag_fs=lag_fs)
        return 1e3 * spectrum(found, wavenumbers_cm) / found.values[0]

    return Observable(
        name=f"spectrum {name}",
        observe=observe,
        unit="10⁻³ cm",
        x=wavenumbers_cm,
        x_label="wavenumber (1/cm)",
        in_time=True,
    )


def diffusion(
    atoms: Tensor, molecules: Sequence[int], name: str, *, window_fs: tuple[float, float]
) -> Observable:
    """D of the centres of mass of some molecules, in 1e-9 m²/s."""

    def observe(seen: Snapshots) -> Tensor:
        found = mean_squared_displacement(
            seen, atoms, molecules=molecules, longest_lag_fs=window_fs[1]
        )
        return 1e9 * diffusion_coefficient(found, window_fs=window_fs)

    return Observable(name=f"D {name}", observe=observe, unit="1e-9 m²/s", in_time=True)


def vaporisation(
    energy: Energy,
    gas_eV: Tensor,
    *,
    molecules: int,
    temperature_K: float,
    thinned: int = 1,
) -> Observable:
    """ΔH of vaporisation; ``gas_eV`` is the mean energy of one isolated molecule."""

    def observe(seen: Snapshots) -> Tensor:
        energies = potential_energies(energy, seen)
        liquid = average(energies[..., None], seen)
        return enthalpy_of_vaporisation(
            liquid, gas_eV, molecules=molecules, temperature_K=temperature_K
        )

    return Observable(name="ΔH vap", observe=observe, unit="kJ/mol", thinned=thinned)


def elasticity(energy: Energy, positions: Tensor, cell: Tensor) -> Observable:
    """C11, C12 and C44 of a cubic crystal at rest, and the mean stress, GPa.

    Of the crystal itself: no trajectory enters, so that nothing is averaged.
    """

    def observe(_: Snapshots) -> Tensor:
        found = elastic_constants(energy, positions, cell)
        c = found.relaxed
        cubic = (c[[0, 1, 2], [0, 1, 2]], c[[0, 0, 1], [1, 2, 2]], c[[3, 4, 5], [3, 4, 5]])
        return torch.stack([part.mean() for part in (*cubic, found.stress[:3])])

    return Observable(
        name="elastic constants",
        observe=observe,
        unit="GPa",
        x=torch.arange(4.0),
        labels=("C11", "C12", "C44", "stress"),
    )
