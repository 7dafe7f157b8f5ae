"""The two time steps of a run."""

import math
from dataclasses import dataclass

from mts_driver.errors import UserError

HELD_INNER_FS, RIGID_INNER_FS = 2.0, 4.0
"""Inner steps where bonds to hydrogen are held, and where water is rigid as well; about."""
MOST_FLEXIBLE_FS = 1.0
"""The longest step that hydrogens of natural mass take on bonds that are not held."""
MOST_SINGLE_FS = 3.0
"""Of a single model, with heavy hydrogens whose bonds are not held."""
MOST_NATURAL_FS = 4.5
"""Outer steps below half the period of the O–H stretch with hydrogens of natural mass."""
LIGHT_DA = 1.5
"""Hydrogens that are no deuterium and not heavy."""


def inner_fs_near(about_fs: float, outer_fs: float) -> float:
    """Return the inner step near ``about_fs`` of which a whole number makes an outer one, fs."""
    return outer_fs / max(1, round(outer_fs / about_fs)) if math.isfinite(outer_fs) else outer_fs


def free_bonds_warning(outer_fs: float, hydrogen_Da: float, *, student: bool) -> str | None:
    """Say where a step is too long for bonds to hydrogen that are not held; else None.

    Parameters
    ----------
    outer_fs : float
        Of the teacher, fs.
    hydrogen_Da : float
        Mass of the lightest hydrogen, Da.
    student : bool
        Whether one takes inner steps.
    """
    if not student and outer_fs > MOST_SINGLE_FS:
        return (
            f"single steps of {outer_fs:g} fs are too long for bonds to hydrogen that are not "
            "held, which vibrate within 9 fs, or 17 with hydrogens of 4 Da: give outer_fs=1, 2 "
            "with heavy hydrogens, or 4 with constrain_hydrogens"
        )
    if student and hydrogen_Da < LIGHT_DA and outer_fs > MOST_NATURAL_FS:
        return (
            f"an outer step of {outer_fs:g} fs with hydrogens of {hydrogen_Da:.3g} Da is beyond "
            "half the period of their bonds, 4.6 fs, where it heats them: give outer_fs=4 or less, "
            "or heavy hydrogens"
        )
    return None


@dataclass(frozen=True)
class TimeSteps:
    """An outer step that is made of whole inner ones.

    Attributes
    ----------
    outer_fs, inner_fs : float
        Of teacher and student, fs.

    Raises
    ------
    UserError
        If one is not positive and finite, or the first is no multiple of the second.
    """

    outer_fs: float
    inner_fs: float

    def __post_init__(self) -> None:
        outer, inner = self.outer_fs, self.inner_fs
        for name, value in (("outer_fs", outer), ("inner_fs", inner)):
            if not 0 < value < math.inf:
                raise UserError(f"{name}={value:g}: give a finite number above 0.")
        n = max(1, self.n_inner)
        if abs(n * inner - outer) > 1e-9 * outer:
            raise UserError(
                f"outer_fs={outer:g} is no multiple of inner_fs={inner:g}: an outer step is made "
                f"of whole inner ones; give outer_fs={n * inner:g} or inner_fs={outer / n:g}."
            )

    @property
    def n_inner(self) -> int:
        """Inner steps of an outer one."""
        return round(self.outer_fs / self.inner_fs)
