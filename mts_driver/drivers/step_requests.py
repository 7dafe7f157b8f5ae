"""What a request to take steps must hold, checked before a step is taken."""

from collections.abc import Mapping, Sequence

import numpy as np

from integrators.constraints import Constraints, Distances
from integrators.gle import ColouredNoise
from mts_driver.errors import UserError

Arrays = Mapping[str, np.ndarray]

MOST_STEPS = 10_000
"""Of one request; more is a mistake."""
MOST_IN_ALL = 100_000
"""Inner steps of all outer ones of a request; others wait so long."""
NEEDED = ("q", "p", "masses", "cell", "friction", "groups", "modes", "omega")
BESIDE = ("drift", "extra", "held", "lengths")
"""May be left out: coloured noise, and distances that are held."""
MOST_EXTRA = 30
"""Extra momenta of coloured noise; more is a mistake."""


def check_run(arrays: Arrays, seeds: Sequence[int], n: int, natoms: int) -> bool:
    """Check a request for whole outer steps, and return whether there is a thermostat."""
    thermostat = check(arrays, n, natoms)
    if not 1 <= len(seeds) <= MOST_STEPS or len(seeds) * n > MOST_IN_ALL:
        raise UserError(
            f"a request to run has {len(seeds)} seeds and {n} inner steps for each: give 1 to "
            f"{MOST_STEPS} seeds, and {MOST_IN_ALL} steps in all."
        )
    return thermostat


def check(arrays: Arrays, n: int, natoms: int, *more: str) -> bool:
    """Check the arrays of a request and return whether there is a thermostat."""
    if missing := [name for name in (*NEEDED, *more) if name not in arrays]:
        raise UserError(f"a request to propagate lacks {', '.join(missing)}.")
    if not (isinstance(n, int) and 1 <= n <= MOST_STEPS):
        raise UserError(f"a request to propagate has n={n!r} inner steps: give 1 to {MOST_STEPS}.")
    if arrays["q"].ndim != 3 or len(arrays["q"]) == 0 or arrays["groups"].ndim != 2:
        raise UserError(
            f"a request to propagate has q of shape {arrays['q'].shape} and groups of shape "
            f"{arrays['groups'].shape}: give (P, N, 3) and (G, N)."
        )
    beads, drift = len(arrays["q"]), arrays.get("drift", np.zeros(0))
    bath = arrays["friction"].size > 0 or drift.size > 0
    several = _check_beside(arrays, beads, natoms)
    shapes = {
        "q": (beads, natoms, 3),
        "p": (beads, natoms, 3),
        "masses": (natoms,),
        "cell": (3, 3),
        "friction": (beads, natoms) if bath and not drift.size else (0,),
        "noise": (n, *several, beads, natoms, 3) if bath else (0,),
        "groups": (len(arrays["groups"]), natoms),
        "modes": (beads, beads) if beads > 1 else (0,),
        "omega": (beads,) if beads > 1 else (0,),
    }
    for name in (*NEEDED, *more):
        if arrays[name].shape != shapes[name]:
            raise UserError(
                f"a request to propagate has {name} of shape {arrays[name].shape} where "
                f"{shapes[name]} is expected: --structure has {natoms} atoms, and must be the one "
                "that runs."
            )
    _check_values(arrays, *more, *(name for name in BESIDE if name in arrays))
    return bath


def _check_beside(arrays: Arrays, beads: int, natoms: int) -> tuple[int, ...]:
    """Check coloured noise and distances that are held; return how many numbers noise has more."""
    a = {name: arrays.get(name, np.zeros(0)) for name in BESIDE}
    rows, pairs = len(a["drift"]), len(a["held"])
    if (rows or pairs) and beads > 1:
        raise UserError(
            "a request to propagate has coloured noise or distances that are held for "
            f"{beads} beads: they are for one."
        )
    shapes = {
        "drift": (rows, rows) if rows else (0,),
        "extra": (rows - 1, beads, natoms, 3) if rows else (0,),
        "held": (pairs, 2) if pairs else (0,),
        "lengths": (pairs,),
    }
    for name, array in a.items():
        if (array.size and array.shape != shapes[name]) or rows > MOST_EXTRA + 1:
            raise UserError(
                f"a request to propagate has {name} of shape {array.shape} where {shapes[name]} "
                f"is expected, with at most {MOST_EXTRA} extra momenta."
            )
    whole = np.array_equal(a["held"], np.rint(a["held"]))  # messages hold no integers
    if pairs and not (whole and len(a["lengths"]) == pairs):
        raise UserError(
            "a request to propagate has held pairs that are no whole numbers, or not one length "
            "for each."
        )
    if rows and a["extra"].shape != shapes["extra"]:
        raise UserError("a request to propagate has a drift matrix without its extra momenta.")
    return draws(arrays)


def draws(arrays: Arrays, *, held: bool | None = None) -> tuple[int, ...]:
    """Return how many normal numbers a thermostat step needs of every coordinate, () for one.

    ``held`` tells whether distances are held, if not those of ``arrays`` alone.
    """
    rows = len(arrays.get("drift", ()))
    held = len(arrays.get("held", ())) > 0 if held is None else held
    return (rows + held,) if rows else ()


def _check_values(arrays: Arrays, *more: str) -> None:
    """Refuse numbers with which steps would be wrong, or go on for ever."""
    for name in (*NEEDED, *more):
        if not np.isfinite(arrays[name].sum()):
            raise UserError(f"a request to propagate has {name} that is not finite.")
    if not (arrays["masses"] > 0).all() or not (arrays["friction"] >= 0).all():
        raise UserError("a request to propagate has masses below or at 0, or frictions below it.")


def beside(
    arrays: Arrays,
) -> tuple[ColouredNoise | None, np.ndarray | None, Constraints | None]:
    """Return coloured noise with its extra momenta, and constraints, where there are any."""
    a = {name: np.ascontiguousarray(arrays.get(name, np.zeros(0))).copy() for name in BESIDE}
    coloured = constraints = None
    try:
        if a["drift"].size:
            coloured = ColouredNoise.of(a["drift"])
        if a["held"].size:
            constraints = Constraints.of(
                Distances(a["held"].astype(np.int64), a["lengths"]),
                arrays["masses"],
                arrays["q"][0],
                arrays["cell"],
            )
            friction = np.broadcast_to(arrays["friction"].sum(axis=0), arrays["masses"].shape)
            constraints.require_one_friction(friction)
    except ValueError as error:
        raise UserError(f"a request to propagate cannot be met: {error}.") from error
    return coloured, a["extra"] if coloured else None, constraints
