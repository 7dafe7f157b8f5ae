"""Numbers of a model as parameters: checked, in float64, with their units in their names."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mts_driver.errors import UserError

RANGES = {
    "charge_e": (-math.inf, math.inf),
    "coupling": (0.0, 1.0),
    "damping_per_A": (0.0, math.inf),
    "switch_A": (0.0, math.inf),
    "q": (0.0, math.inf),
    "cos_theta0": (-1.0, 1.0),
    "angle_rad": (0.0, math.pi),
}
"""What numbers may be, ends included; all others are positive."""


def number(name: str, value: Any) -> float:
    """Return a number within its range.

    Raises
    ------
    UserError
        If it is none, not finite, or out of its range.
    """
    kind = name.partition(".")[0]
    low, high = RANGES.get(kind, (0.0, math.inf))
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if good and math.isfinite(value) and (low <= value <= high if kind in RANGES else value > 0):
        return float(value)
    allowed = f"from {low:g} to {high:g}" if kind in RANGES else "positive"
    raise UserError(f"{name}={value!r}: give a finite number, {allowed}.")


def parameter(name: str, value: Any) -> nn.Parameter:
    """Return a scalar in float64 that can be trained; see `number`."""
    return nn.Parameter(torch.tensor(number(name, value), dtype=torch.float64))


def by_kind(name: str, values: Mapping[str, Any]) -> nn.ParameterDict:
    """Return a parameter for each type; its name is then ``name.TYPE``."""
    return nn.ParameterDict({kind: parameter(f"{name}.{kind}", v) for kind, v in values.items()})


def of_kinds(values: nn.ParameterDict, names: Sequence[str]) -> Tensor:
    """Values of the named types, (T,)."""
    return torch.stack([values[name] for name in names])


def each(values: nn.ParameterDict, names: Sequence[str], kinds: Tensor) -> Tensor:
    """Values for items (K,) whose kinds count the names; a scalar where there is one name."""
    return values[names[0]] if len(names) == 1 else of_kinds(values, names)[kinds]


def check_names(given: Iterable[str], known: Iterable[str], *, what: str) -> None:
    """Check that exactly the known names are given.

    Raises
    ------
    UserError
        That lists what is missing or unknown.
    """
    given, known = list(given), list(known)
    if missing := [name for name in known if name not in given]:
        raise UserError(f"{what} lacks {', '.join(missing)}: it needs {', '.join(known)}.")
    if unknown := [name for name in given if name not in known]:
        raise UserError(
            f"{what} has no {', '.join(map(repr, unknown))}: it takes {', '.join(known)}."
        )


def train_only(model: nn.Module, names: Iterable[str]) -> None:
    """Let only the named parameters of a model require a gradient.

    Raises
    ------
    UserError
        If a name is not one of its parameters.
    """
    known, names = dict(model.named_parameters()), list(names)
    for name in names:
        if name not in known:
            raise UserError(f"trained has {name!r}: the parameters are {', '.join(known)}.")
    for name, one in known.items():
        one.requires_grad_(name in names)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Those parameters of a model that require a gradient, by their names."""
    return {name: one for name, one in model.named_parameters() if one.requires_grad}
