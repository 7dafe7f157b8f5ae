"""SO3LR's electrostatics and dispersion between all pairs within 12 Å, as one fused kernel.

Source: Kabylda et al., J. Am. Chem. Soc. 2025 (SO3LR); dispersion Khabibrakhmanov et al., J. Chem.
Theory Comput. 19, 7895 (2023). With partial charges q and Hirshfeld ratios h a pair has the energy

    E = ke q_i q_j g(r) − w(r) h_i h_j c_ij K(r, t),   t = α_ij^(1/7),  α_ij = (A_i h_i + A_j h_j)/2

where g and w depend on r alone, c_ij on the two elements alone, and K = 1/(R⁶+p⁶) + 5/γ/(R⁸+p⁸) +
245/8/γ²/(R¹⁰+p¹⁰) with p and γ polynomials of t. g, w and t are read from cubic splines.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor

from mts_driver.potentials.so3lr.network import ALL, switch_off

CUTOFF_A = 12.0
DAMPING_A = 2.0
COULOMB_ONSET_A = 0.45 * CUTOFF_A
COULOMB_WIDTH_A = 4.0
DISPERSION_SCALE = 1.2
COULOMB_EV_A = 14.399645351950548
BOHR_A = 0.5291772105638411
HARTREE_EV = 27.211386245988
VDW = 0.0072973525693 ** (-4.0 / 21.0)
TABLE = 8192


def coulomb(r: Tensor) -> Tensor:
    """Damped, shifted-force Coulomb kernel g(r), 1/Å, zero at the cutoff."""
    cut = torch.tensor(CUTOFF_A, dtype=r.dtype)
    at_cut = torch.erf(cut / COULOMB_WIDTH_A) / cut
    slope = (
        2
        * cut
        * torch.exp(-((cut / COULOMB_WIDTH_A) ** 2))
        / (math.sqrt(math.pi) * COULOMB_WIDTH_A)
        - torch.erf(cut / COULOMB_WIDTH_A)
    ) / cut**2
    shift = (1.0 - switch_off(r, COULOMB_ONSET_A, CUTOFF_A)) * slope * (r - CUTOFF_A)
    return torch.erf(r / COULOMB_WIDTH_A) / r - at_cut - shift


def cutoff(r: Tensor) -> Tensor:
    """Switching function w(r) of the dispersion energy."""
    return switch_off(r, CUTOFF_A - DAMPING_A, CUTOFF_A)


def _table(f: Callable[[Tensor], Tensor], low: float, high: float) -> NDArray[np.float64]:
    """Values and scaled slopes of ``f`` on an even grid, shape (TABLE + 1, 2), for `_hermite`."""
    x = torch.linspace(low, high, TABLE + 1, dtype=torch.float64, requires_grad=True)
    y = f(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    return np.stack((y.detach().numpy(), slope.numpy() * (high - low) / TABLE), -1)


class LongRange:
    """Electrostatics plus dispersion of all pairs within 12 Å.

    Parameters
    ----------
    numbers : sequence of int, length N
        Atomic numbers of one replica.
    polarizabilities, c6 : Tensor, shape (102,)
        Free-atom reference values from ``so3krates_torch``, atomic units.
    """

    def __init__(self, numbers: NDArray[np.int64], polarizabilities: Tensor, c6: Tensor) -> None:
        alpha, c = polarizabilities.double().numpy(), c6.double().numpy()
        kinds, self.kind = np.unique(numbers, return_inverse=True)
        a, b = alpha[kinds - 1], c[kinds - 1]
        # C6 mixing rule with α ∝ h and C6 ∝ h²: the ratios h cancel but for a factor h_i h_j
        self.c6 = 2 * np.outer(a * b, a * b) / (np.outer(a**2, b) + np.outer(b, a**2))
        self.alpha = a[self.kind]
        self.tables = (_table(coulomb, 0.2, CUTOFF_A), _table(cutoff, 9.0, CUTOFF_A))
        self.root = _table(lambda x: x ** (1 / 7), 0.2, 60.0)

    def __call__(
        self,
        i: Tensor,
        j: Tensor,
        r: Tensor,
        q: Tensor,
        h: Tensor,
        atoms: NDArray[np.int64] | slice = ALL,
    ) -> Tensor:
        """Energies of the replicas, eV, shape (R,), differentiable in r (P,), q and h (R, N).

        Where i, j, q and h are of some atoms only, ``atoms`` says which.
        """
        if r.device.type == "cpu":
            return _Fused.apply(self, i, j, r, q, h, atoms)
        return self.reference(i, j, r, q, h, atoms)

    def reference(
        self,
        i: Tensor,
        j: Tensor,
        r: Tensor,
        q: Tensor,
        h: Tensor,
        atoms: NDArray[np.int64] | slice = ALL,
    ) -> Tensor:
        """Compute the same in plain torch: for GPUs, and to test the fused kernel against."""
        replicas, count = q.shape
        alpha = torch.as_tensor(self.alpha[atoms], dtype=h.dtype, device=h.device)
        kind = torch.as_tensor(self.kind[atoms], device=h.device).repeat(replicas)
        c6 = torch.as_tensor(self.c6, dtype=h.dtype, device=h.device)[kind[i], kind[j]]
        polar, q, h = (h * alpha).reshape(-1), q.reshape(-1), h.reshape(-1)
        t = ((polar[i] + polar[j]) / 2) ** (1 / 7)
        big_r, p, inverse_gamma = r / BOHR_A, 5.08 * DISPERSION_SCALE * t, 2 * _sigma(VDW * t) ** 2
        well = (
            1 / (big_r**6 + p**6)
            + 5 * inverse_gamma / (big_r**8 + p**8)
            + 245 / 8 * inverse_gamma**2 / (big_r**10 + p**10)
        )
        energy = COULOMB_EV_A * q[i] * q[j] * coulomb(r)
        energy = energy - HARTREE_EV * cutoff(r) * h[i] * h[j] * c6 * well
        return energy.new_zeros(replicas).index_add(0, i // count, energy)


class _Fused(torch.autograd.Function):
    """Energy and all its derivatives in one pass over the pairs (`_pairs`)."""

    @staticmethod
    def forward(ctx, model, i, j, r, q, h, which):
        arrays = [t.detach().numpy() for t in (i, j, r)]
        charges, volumes = (t.detach().double().numpy() for t in (q, h))
        atoms = (charges, volumes, model.alpha[which], model.kind[which], model.c6)
        energy, dr, dq, dh = _pairs(*arrays, *atoms, *model.tables, model.root)
        ctx.save_for_backward(torch.from_numpy(dr), torch.from_numpy(dq), torch.from_numpy(dh))
        ctx.dtypes = r.dtype, q.dtype, i
        return torch.from_numpy(energy)

    @staticmethod
    def backward(ctx, grad):
        dr, dq, dh = ctx.saved_tensors
        r_type, q_type, i = ctx.dtypes
        by_pair = grad[i // dq.shape[1]] if len(grad) > 1 else grad
        dq, dh = dq * grad[:, None], dh * grad[:, None]
        return None, None, None, (dr * by_pair).to(r_type), dq.to(q_type), dh.to(q_type), None


def _sigma(v: Tensor) -> Tensor:
    return ((-0.00078893 * v + 0.04125273) * v + 0.24428889) * v - 0.00433008


@njit(inline="always")
def _hermite(table, low, high, x):
    """Value and slope at ``x`` of the cubic spline through the table's values and slopes."""
    scale = (table.shape[0] - 1) / (high - low)
    u = min(max((x - low) * scale, 0.0), table.shape[0] - 1.000001)
    k = int(u)
    s = u - k
    y0, y1, m0, m1 = table[k, 0], table[k + 1, 0], table[k, 1], table[k + 1, 1]
    c2, c3 = 3 * (y1 - y0) - 2 * m0 - m1, 2 * (y0 - y1) + m0 + m1
    return y0 + s * (m0 + s * (c2 + s * c3)), (m0 + s * (2 * c2 + 3 * s * c3)) * scale


@njit(parallel=True, cache=True)
def _pairs(i, j, r, q, h, alpha, kind, c6, coulomb_t, cutoff_t, root_t):
    replicas, atoms = q.shape
    chunks = 8  # a fixed number, so that sums don't depend on how many threads there are
    energy = np.zeros((chunks, replicas))
    dq, dh = np.zeros((chunks, replicas, atoms)), np.zeros((chunks, replicas, atoms))
    dr = np.empty(r.size)
    for chunk in prange(chunks):
        for p in range(r.size * chunk // chunks, r.size * (chunk + 1) // chunks):
            rep, a, b = i[p] // atoms, i[p] % atoms, j[p] % atoms
            x = float(r[p])
            g, dg = _hermite(coulomb_t, 0.2, CUTOFF_A, x)
            qa, qb = COULOMB_EV_A * q[rep, a], COULOMB_EV_A * q[rep, b]
            qq = qa * q[rep, b]
            w, dw = 1.0, 0.0
            if x > CUTOFF_A - DAMPING_A:
                w, dw = _hermite(cutoff_t, 9.0, CUTOFF_A, x)
            mean = 0.5 * (alpha[a] * h[rep, a] + alpha[b] * h[rep, b])
            t, dt = _hermite(root_t, 0.2, 60.0, mean)
            v = VDW * t
            s = ((-0.00078893 * v + 0.04125273) * v + 0.24428889) * v - 0.00433008
            ds = (3 * -0.00078893 * v + 2 * 0.04125273) * v + 0.24428889
            f, df = 2 * s * s, 4 * s * ds * VDW
            scale = 5.08 * DISPERSION_SCALE
            big = x / BOHR_A
            r2, p2 = big * big, (scale * t) ** 2
            r4, p4 = r2 * r2, p2 * p2
            k6 = 1 / (r4 * r2 + p4 * p2)
            k8 = 5 * f / (r4 * r4 + p4 * p4)
            k10 = 245 / 8 * f * f / (r4 * r4 * r2 + p4 * p4 * p2)
            well = k6 + k8 + k10
            l6 = 6 * k6 * k6
            l8 = 8 * k8 / (r4 * r4 + p4 * p4)
            l10 = 10 * k10 / (r4 * r4 * r2 + p4 * p4 * p2)
            d_big = -(l6 * r4 + l8 * r4 * r2 + l10 * r4 * r4) * big
            d_t = -(l6 * p4 + l8 * p4 * p2 + l10 * p4 * p4) * scale * scale * t
            d_t += (k8 + 2 * k10) * df / f
            depth = -HARTREE_EV * c6[kind[a], kind[b]]
            ha, hb = h[rep, a], h[rep, b]
            energy[chunk, rep] += qq * g + depth * ha * hb * w * well
            dr[p] = qq * dg + depth * ha * hb * (dw * well + w * d_big / BOHR_A)
            dq[chunk, rep, a] += qb * g
            dq[chunk, rep, b] += qa * g
            common = 0.5 * depth * ha * hb * w * d_t * dt
            dh[chunk, rep, a] += depth * hb * w * well + common * alpha[a]
            dh[chunk, rep, b] += depth * ha * w * well + common * alpha[b]
    return energy.sum(0), dr, dq.sum(0), dh.sum(0)
