"""Vectors in numba kernels against numpy."""

import numpy as np
import pytest
from numba import njit

from mts_driver.potentials.student.cpu.simd import (
    exponential,
    inverse,
    largest,
    load,
    one,
    roll,
    root,
    size,
    store,
    total,
)


def everything(lanes):
    """A function that writes one result of every operation to a row of its own."""

    @njit(fastmath=True)
    def compute(a, out):
        v, x = load(a, 0, lanes), one(a, lanes)
        w = load(a, lanes, v)
        store(out, 0, v * w + x * v - w)
        v += w
        v -= x * w
        v *= w
        store(out, lanes, v)
        store(out, 2 * lanes, roll(w, 1) + roll(w, -2))
        store(out, 3 * lanes, inverse(w) + root(w))
        store(out, 4 * lanes, largest(v, w))
        store(out, 5 * lanes, exponential(load(a, 2 * lanes, w)))
        return total(w), size(w)

    return compute


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lanes", [5, 8])
def test_lanes_equal_numpy(lanes, dtype):
    rng = np.random.default_rng(1)
    # rows that start anywhere, not where a register would
    a = rng.uniform(0.5, 2.0, 3 * lanes + 1).astype(dtype)[1:]
    a[2 * lanes :] = np.linspace(-80.0, 80.0, lanes)
    v, w, y = (part.copy() for part in a.reshape(3, lanes))
    out = np.zeros((6, lanes), dtype)
    found, count = everything(lanes)(a, out)
    x, later = w[0], (v + w - w[0] * w) * w
    expected = [
        v * w + x * v - w,
        later,
        np.roll(w, -1) + np.roll(w, 2),
        1 / w + np.sqrt(w),
        np.maximum(later, w),
    ]
    np.testing.assert_allclose(out[:5], expected, rtol=20 * np.finfo(dtype).eps)
    np.testing.assert_allclose(out[5], np.exp(y.astype(float)), rtol=8 * np.finfo(dtype).eps)
    assert found == pytest.approx(w.sum(), rel=1e-6) and count == lanes


def test_exponential_stays_finite_where_numpy_overflows():
    for dtype in (np.float32, np.float64):
        a = np.array([0.9, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -1e4, 1e4, 0.0, -0.0], dtype)
        out = np.zeros((6, 4), dtype)
        everything(4)(a, out)
        assert np.isfinite(out[5]).all() and out[5, 0] < 1e-30 and out[5, 1] > 1e30
        assert out[5, 2] == out[5, 3] == 1.0
