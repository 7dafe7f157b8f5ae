"""How far filled frames are from the true ones, beside splines."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mts_driver.super_resolution.fillers import Filler, by_spline
from mts_driver.super_resolution.frames import Frames, gaps
from mts_driver.super_resolution.ways.splines import SPLINES


@dataclass(frozen=True)
class Errors:
    """Of filled frames.

    Attributes
    ----------
    mean_error_A, worst_error_A : float
        Distances of atoms from where they were, Å.
    mean_coordinate_error_A : float
        Mean absolute error of coordinates, as Winkler et al. give it.
    gaps : int
        How many were filled.
    """

    mean_error_A: float
    worst_error_A: float
    mean_coordinate_error_A: float
    gaps: int


def errors(found: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> Errors:
    """Return the errors of positions (F, G, N, 3), in parts that count as they are long."""
    off = [a - b for a, b in zip(found, truth, strict=True)]
    away = np.concatenate([np.linalg.norm(a, axis=-1).ravel() for a in off])
    coordinates = np.concatenate([np.abs(a).ravel() for a in off])
    return Errors(
        float(away.mean()),
        float(away.max()),
        float(coordinates.mean()),
        sum(a.shape[1] for a in off),
    )


def errors_of(fill: Filler, parts: Sequence[Frames], stride: int, window: int = 1) -> Errors:
    """Fill the gaps between every ``stride``-th frame of trajectories, and compare."""
    found, truth = [], []
    for frames in parts:
        between, inside = gaps(frames, stride, window)
        size = frames.gaps_at_once
        for start in range(0, len(between), size):
            some = between.part(start, start + size)
            found.append(fill(some, stride).positions_A)
            truth.append(inside[:, start : start + size])
    return errors(found, truth)


def errors_of_splines(parts: Sequence[Frames], stride: int) -> dict[str, Errors]:
    """Return the errors of all splines whose data are known."""
    known = min(len(frames.series()) for frames in parts)
    return {
        kind: errors_of(by_spline(kind), parts, stride)
        for kind, count in SPLINES.items()
        if count <= known
    }
