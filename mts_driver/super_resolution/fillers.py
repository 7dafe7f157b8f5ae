"""All that fills gaps behind one call: splines, networks and the bridge."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mts_driver.errors import UserError
from mts_driver.potentials.load import as_potential, student_spec
from mts_driver.super_resolution.doubts import astray_A
from mts_driver.super_resolution.files.stored import Stored
from mts_driver.super_resolution.frames import Gaps
from mts_driver.super_resolution.networks.file import is_network, read_network, require_fits
from mts_driver.super_resolution.ways.bridge import Bridged, bridge
from mts_driver.super_resolution.ways.replay import Replay, read_physics, require_free_bonds
from mts_driver.super_resolution.ways.splines import SPLINES, spline

LONGEST_STEP_FS = 0.5
"""Of a shot."""
REPLAY = "replay"
NOTHING_EXPECTED = np.zeros((0, 0))

Filler = Callable[[Gaps, int], Bridged]
"""Takes gaps, and into how many intervals each is divided; where nothing is expected of how far the
ends are apart, ``expected_A`` is empty."""


def filler(
    model: str,
    stored: Stored,
    *,
    teacher: str | None = None,
    teacher_calls: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
) -> Filler:
    """Return what fills gaps of a trajectory.

    Parameters
    ----------
    model : str
        ``linear``, ``cubic`` or ``quintic``; ``replay``, of a run with all outer steps; a file of
        ``mts superres train``; or a student, as elsewhere.
    teacher, teacher_calls
        See `mts_driver.super_resolution.ways.bridge.bridge`.

    Raises
    ------
    UserError
        If there is no such model, or it is of other atoms.
    """
    if teacher_calls and teacher is None:
        raise UserError(f"teacher_calls={teacher_calls} needs a teacher.")
    if stored.input is not None and model not in SPLINES:
        require_free_bonds(stored.input)
    if model == REPLAY:
        return _replay(stored, device, dtype)
    by_student = model not in SPLINES and not is_network(Path(model))
    if teacher_calls and not by_student:
        raise UserError(
            f"teacher_calls={teacher_calls} with model={model!r}: only a student can use them."
        )
    if model in SPLINES:
        return by_spline(model)
    if not by_student:
        return _by_network(Path(model), stored)
    spec, _ = student_spec(model)
    if spec is None:
        raise UserError(f"model={model!r}: give linear, cubic, quintic, or a file of a model.")
    student = as_potential(spec, stored.atoms, device=device, dtype=dtype, name="model")
    slow = None
    if teacher is not None:
        slow = as_potential(teacher, stored.atoms, device=device, dtype="float64", name="teacher")

    def by_shots(gaps: Gaps, steps: int) -> Bridged:
        finer = int(np.ceil(gaps.duration_fs / steps / LONGEST_STEP_FS - 1e-6))
        found = bridge(
            gaps,
            student,
            stored.frames.inertia,
            steps=steps * finer,
            cell_A=stored.frames.cell_A,
            teacher=slow,
            teacher_calls=teacher_calls,
        )
        return Bridged(found.positions_A[finer - 1 :: finer], found.astray_A, found.expected_A)

    return by_shots


def by_spline(kind: str) -> Filler:
    """Return what fills gaps by a spline; see `mts_driver.super_resolution.ways.splines`."""
    return lambda gaps, steps: _plain(gaps, spline(gaps, _times(gaps, steps), kind))


def _replay(stored: Stored, device: str, dtype: str) -> Filler:
    if stored.input is None or stored.student is None or stored.steps is None:
        raise UserError(
            "model='replay' is for folders of runs with a student; give another for these frames."
        )
    physics = read_physics(stored.input)
    student = as_potential(stored.student, stored.atoms, device=device, dtype=dtype, name="student")
    frames = stored.frames
    cell_A = np.zeros((3, 3)) if frames.cell_A is None else frames.cell_A
    return Replay(physics, student, frames.numbers, frames.inertia, cell_A, stored.steps)


def _by_network(file: Path, stored: Stored) -> Filler:
    fill, _ = read_network(file)
    require_fits(fill, stored.frames)

    def filled(gaps: Gaps, steps: int) -> Bridged:
        if steps != fill.stride:
            raise UserError(
                f"model '{file}' divides a gap into {fill.stride} intervals of "
                f"{fill.timestep_fs:g} fs, not into {steps}."
            )
        return _plain(gaps, fill(gaps))

    return filled


def _plain(gaps: Gaps, positions_A: np.ndarray) -> Bridged:
    return Bridged(positions_A, astray_A(gaps), NOTHING_EXPECTED)


def _times(gaps: Gaps, steps: int) -> np.ndarray:
    return gaps.duration_fs * np.arange(1, steps) / steps
