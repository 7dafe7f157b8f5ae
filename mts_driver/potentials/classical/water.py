"""Tables of flexible water with three sites, and of oxygen in it."""

import math

from mts_driver.errors import UserError
from mts_driver.potentials.classical.force_field import NEUTRAL, AtomType, ForceField, Molecule
from mts_driver.potentials.classical.forms import FORMS
from mts_driver.potentials.classical.molecular import ANGLE, BOND
from mts_driver.potentials.classical.pair_models import SWITCHED
from mts_driver.units import BOLTZMANN_EV_K, KCAL_MOL_EV, KJ_MOL_EV

WATER_MODELS: dict[str, dict[str, float]] = {
    "SPC/Fw": {
        "charge_e": 0.41,
        "epsilon_eV": 0.1554253 * KCAL_MOL_EV,
        "sigma_A": 3.165492,
        "bond_k_eV_A2": 1059.162 * KCAL_MOL_EV,
        "bond_length_A": 1.012,
        "angle_k_eV_rad2": 75.90 * KCAL_MOL_EV,
        "angle_rad": 1.976411,
    },
    "TIP3P": {
        "charge_e": 0.417,
        "epsilon_eV": 0.635968 * KJ_MOL_EV,
        "sigma_A": 3.15075,
        "bond_k_eV_A2": 4627.504 * KJ_MOL_EV,
        "bond_length_A": 0.9572,
        "angle_k_eV_rad2": 836.8 * KJ_MOL_EV,
        "angle_rad": 1.82421813418,
    },
}
"""SPC/Fw: Wu, Tepper and Voth, J. Chem. Phys. 124, 024503 (2006). TIP3P with OpenMM's bonds."""

OXYGEN = {
    "epsilon_eV": 49.0 * BOLTZMANN_EV_K,
    "sigma_A": 3.02,
    "bond_k_eV_A2": 73.4,
    "bond_length_A": 1.21,
}
"""Of O₂, without charges: Zhang and Siepmann, Theor. Chem. Acc. 115, 391 (2006), and a spring for
the frequency of 1580 cm⁻¹."""
STEEPNESS = 14.0
"""Of exp-6 functions, B r_m. At 12 C is that of the Lennard-Jones function of the same minimum, but
oxygens come so near that hydrogens fall into them."""


def flexible_water(
    model: str = "SPC/Fw",
    *,
    form: str = "lennard-jones",
    cutoff_A: float = 9.0,
    switch_A: float | None = None,
    damping_per_A: float = 0.2,
    oxygen: bool = False,
) -> ForceField:
    """Return the tables of a flexible water with three sites, in the order O H H.

    Parameters
    ----------
    model : str
        A name in `WATER_MODELS`.
    form : str
        The van der Waals function between oxygens, a name in `FORMS`; others than the model's own
        get its depth and the place of its minimum.
    cutoff_A, switch_A, damping_per_A : float
        Of `ForceField`; the switch begins at 0.9 of the cutoff if left out.
    oxygen : bool
        Whether molecules O₂ may be there, too.

    Raises
    ------
    UserError
        If the model or the form is not known.
    """
    if model not in WATER_MODELS:
        raise UserError(f"model={model!r} is not known: use {', '.join(WATER_MODELS)}.")
    values = WATER_MODELS[model]
    own, shared = like_lennard_jones(form, values["epsilon_eV"], values["sigma_A"])
    types = {"OW": AtomType("O", NEUTRAL), "HW": AtomType("H", values["charge_e"])}
    molecules = {"water": Molecule(("OW", "HW", "HW"), ((0, 1), (0, 2)))}
    sized, bonds = {"OW": own}, {"OW-HW": {name: values[name] for name in BOND}}
    if oxygen:
        types["O2"] = AtomType("O")
        molecules["oxygen"] = Molecule(("O2", "O2"), ((0, 1),))
        sized["O2"], _ = like_lennard_jones(form, OXYGEN["epsilon_eV"], OXYGEN["sigma_A"])
        bonds["O2-O2"] = {name: OXYGEN[name] for name in BOND}
    return ForceField(
        types=types,
        molecules=molecules,
        form=form,
        van_der_waals=sized,
        shared=shared,
        bonds=bonds,
        angles={"HW-OW-HW": {name: values[name] for name in ANGLE}},
        cutoff_A=cutoff_A,
        switch_A=SWITCHED * cutoff_A if switch_A is None else switch_A,
        damping_per_A=damping_per_A,
    )


def like_lennard_jones(
    form: str, epsilon_eV: float, sigma_A: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Parameters of a type, and shared ones, with the minimum of a Lennard-Jones function.

    Raises
    ------
    UserError
        If the form is not known.
    """
    r_min_A = 2.0 ** (1.0 / 6.0) * sigma_A
    if form in ("lennard-jones", "soft-core"):
        return {"epsilon_eV": epsilon_eV, "sigma_A": sigma_A}, dict(FORMS[form].shared)
    if form == "double-exponential":
        return {"epsilon_eV": epsilon_eV, "r_min_A": r_min_A}, dict(FORMS[form].shared)
    if form == "buckingham":
        scale = epsilon_eV / (STEEPNESS - 6.0)
        values = {
            "A_eV": 6.0 * scale * math.exp(STEEPNESS),
            "B_per_A": STEEPNESS / r_min_A,
            "C_eV_A6": STEEPNESS * scale * r_min_A**6,
        }
        return values, {"wall_A": 0.5 * r_min_A}
    raise UserError(f"form={form!r} is not known: use {', '.join(FORMS)}.")
