"""What is minimised: deviations from what is measured, each without units, and their sum."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from integrators.reversible import Snapshots
from mts_driver.errors import UserError


class CurveTarget:
    """Mean of ((y - y0) / σ)² over a range of a curve.

    Parameters
    ----------
    x, target, uncertainty : Tensor, shape (B,)
        Where the curve is known, its values y0, and their uncertainties σ.
    between : tuple of two float, optional
        First and last x that count; all, if left out.
    least_uncertainty : float
        Added to σ in squares: measured errors are often smaller than what a model can mean, or
        zero where g(r) is zero.

    Raises
    ------
    UserError
        If shapes differ, nothing lies in the range, or an uncertainty in it is not positive.
    """

    def __init__(
        self,
        x: Tensor,
        target: Tensor,
        uncertainty: Tensor,
        *,
        between: tuple[float, float] | None = None,
        least_uncertainty: float = 0.0,
    ) -> None:
        if x.ndim != 1 or target.shape != x.shape or uncertainty.shape != x.shape:
            raise UserError(
                f"x, target and uncertainty have shapes {tuple(x.shape)}, {tuple(target.shape)} "
                f"and {tuple(uncertainty.shape)}: give one number a point to each."
            )
        low, high = between or (-torch.inf, torch.inf)
        counted = (x >= low) & (x <= high)
        if not bool(counted.any()):
            raise UserError(
                f"between is {low:g} to {high:g}, x from {float(x.min()):g} to "
                f"{float(x.max()):g}: choose a range that has points."
                if x.numel()
                else "x is empty: give at least one point."
            )
        error = torch.hypot(uncertainty, torch.full_like(uncertainty, least_uncertainty))
        good = counted & target.isfinite() & error.isfinite() & (error > 0)
        if not bool((good == counted).all()) or least_uncertainty < 0:
            raise UserError(
                "a target in the range is not finite or an uncertainty not positive: choose "
                "another range (between), or give a least_uncertainty above 0."
            )
        self._points = len(x)
        self._counted = counted.nonzero().flatten()
        self._target, self._error = target[counted].detach(), error[counted].detach()

    def __call__(self, curve: Tensor) -> Tensor:
        """Return the loss of a curve (B,) at the points of the target, shape ()."""
        if curve.shape != (self._points,):
            raise UserError(
                f"the curve has shape {tuple(curve.shape)}, the target ({self._points},): take it "
                "at the points of the target."
            )
        off = curve[self._counted.to(curve.device)] - self._target.to(curve)
        return (off / self._error.to(curve)).square().mean()


class ScalarTarget:
    """((y - y0) / y0)², or over an uncertainty instead of y0.

    Parameters
    ----------
    target : float
        y0.
    uncertainty : float, optional
        To be given for a target of zero.

    Raises
    ------
    UserError
        If a number is not finite, or what the deviation is divided by is zero.
    """

    def __init__(self, target: float, *, uncertainty: float | None = None) -> None:
        scale = abs(target) if uncertainty is None else uncertainty
        if not (abs(target) < torch.inf and 0 < scale < torch.inf):
            raise UserError(
                f"target is {target} and uncertainty {uncertainty}: give finite numbers, and an "
                "uncertainty above 0 where the target is 0."
            )
        self._target, self._scale = target, scale

    def __call__(self, value: Tensor) -> Tensor:
        """Return the loss of a number, shape (); of several the mean."""
        return ((value - self._target) / self._scale).square().mean()


class Term(NamedTuple):
    """A part of a loss.

    Attributes
    ----------
    name : str
        For reports.
    weight : float
        Of the part in the sum, positive.
    loss : callable
        ``loss(snapshots) -> Tensor ()``: a target of an observable.
    """

    name: str
    weight: float
    loss: Callable[[Snapshots], Tensor]


class Losses(NamedTuple):
    """A loss and what it is made of.

    Attributes
    ----------
    total : Tensor, shape ()
        With its graph.
    parts : dict of str to float
        Weighted terms by name, which add up to the total.
    """

    total: Tensor
    parts: dict[str, float]


class WeightedSum:
    """The sum of weighted terms.

    Parameters
    ----------
    terms : sequence of Term
        With names of their own.

    Raises
    ------
    UserError
        If there is no term, two have one name, or a weight is not positive; when called, if a term
        is not one finite number.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        names = [term.name for term in terms]
        if not terms or len(set(names)) < len(names) or not all(names):
            raise UserError(f"terms are named {names}: give at least one, each with its own name.")
        for term in terms:
            if not 0 < term.weight < torch.inf:
                raise UserError(
                    f"the weight of term {term.name!r} is {term.weight}: give a number above 0, or "
                    "leave the term out."
                )
        self.terms = tuple(terms)

    def __call__(self, snapshots: Snapshots) -> Losses:
        """Return the total and its parts."""
        weighted = {term.name: term.weight * self._value(term, snapshots) for term in self.terms}
        total = torch.stack(list(weighted.values())).sum()
        return Losses(total, {name: float(part.detach()) for name, part in weighted.items()})

    @staticmethod
    def _value(term: Term, snapshots: Snapshots) -> Tensor:
        value = term.loss(snapshots)
        if value.shape != () or not bool(value.detach().isfinite()):
            raise UserError(
                f"term {term.name!r} is {value.detach().tolist()}: it must be one finite number; "
                "look at its observable and at the trajectory."
            )
        return value.double()
