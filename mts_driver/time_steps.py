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


def inner_fs_near(about_fs: float, outer_fs: float) -> float:
    """Return the inner step near ``about_fs`` of which a whole number makes an outer one, fs."""
    return outer_fs / max(1, round(outer_fs / about_fs)) if math.isfinite(outer_fs) else outer_fs


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
