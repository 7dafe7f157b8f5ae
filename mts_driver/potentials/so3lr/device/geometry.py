"""What SO3LR reads of a pair, and the way back to its vector, in one launch each.

The functions are those of :class:`mts_driver.potentials.so3lr.network.Geometry`; the kernels are
C++ for Warp, which compiles them for the CPU and for CUDA.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from integrators.device.launches import launch, warp
from mts_driver.potentials.so3lr.network import Geometry

THREADS = 128
HARMONICS = 24


class DeviceGeometry:
    """Distances, cutoff function, harmonics and repulsion of pairs.

    Parameters
    ----------
    packaged : torch.nn.Module
        The model from ``so3krates_torch``, on the device.
    """

    def __init__(self, packaged: Any) -> None:
        zbl, softplus = packaged.zbl_repulsion, nn.functional.softplus
        like = next(packaged.parameters())
        raw = [getattr(zbl, f"{name}{k}_raw") for name in "ac" for k in (1, 2, 3, 4)]
        decay, share = softplus(torch.cat(raw)).view(2, 4)
        self._terms = torch.cat((decay, share / share.sum())).detach().to(like)
        z = torch.arange(packaged.num_elements + 1, device=like.device).to(like)
        self._screening = (z ** softplus(zbl.p_raw) * softplus(zbl.d_raw)).detach()
        self._constants = float(packaged.r_max), float(zbl.ke)

    def __call__(self, i: Tensor, j: Tensor, vectors: Tensor, numbers: Tensor) -> Geometry:
        """Return them, differentiable in the vectors (P, 3)."""
        how = i, j, numbers, self._terms, self._screening, self._constants
        return Geometry(*_Function.apply(vectors, how))


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx, vectors, how):
        i, j, numbers, terms, screening, constants = how
        kernels = geometry_kernels(vectors.dtype == torch.float64)
        r, cutoff = vectors.new_empty(2, len(vectors), 1)
        to_i = vectors.new_empty(len(vectors), HARMONICS)
        repulsion = vectors.new_empty(len(vectors))
        given = vectors, i, j, numbers, terms, screening, *constants
        launch(kernels[0], (len(vectors),), *given, r, cutoff, to_i, repulsion, block=THREADS)
        ctx.given = given
        return r, cutoff, to_i, repulsion

    @staticmethod
    def backward(ctx, *gradients):
        vectors = ctx.given[0]
        kernels = geometry_kernels(vectors.dtype == torch.float64)
        pull, gradients = torch.empty_like(vectors), [g.contiguous() for g in gradients]
        launch(kernels[1], (len(vectors),), *ctx.given, *gradients, pull, block=THREADS)
        return pull, None


_PAIR = """
using number = $number;
const number *v = vectors.data + 3 * p, rr = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
const number distance = wp::sqrt(rr), inverse = 1 / distance;
const number u[3] = {-v[0] * inverse, -v[1] * inverse, -v[2] * inverse};
// the cutoff function and its slope
const number q = distance / number(end), t = 1 - q;
const number phi = q < 1 ? t * t * t * (1 + 3 * q + 6 * q * q) : 0;
const number phi_slope = q < 1 ? -30 * q * q * t * t / number(end) : 0;
// repulsion: screened charges, switched off at 1.5 Å
const int z_i = numbers.data[i.data[p]], z_j = numbers.data[j.data[p]];
const number reach = number(1.5), x = distance / reach;
number pushes = 0, pushes_slope = 0;
if (x < 1) {
    const number low = wp::max(x, number(1e-12)), high = wp::max(1 - x, number(1e-12));
    const number rise = wp::exp(-1 / low), fall = wp::exp(-1 / high);
    const number both = rise + fall + number(1e-12), off = fall / both;
    const number rise_slope = rise / (low * low), fall_slope = -fall / (high * high);
    const number change = fall_slope * both - fall * (rise_slope + fall_slope);
    const number off_slope = change / (both * both * reach);
    number screened = 0, screened_slope = 0;
    const number length = screening.data[z_i] + screening.data[z_j];
    for (int n = 0; n < 4; ++n) {
        const number a = terms.data[n] * length, term = terms.data[4 + n] * wp::exp(-a * distance);
        screened += term;
        screened_slope -= a * term;
    }
    const number charges = number(coulomb) * z_i * z_j, bare = charges * phi * inverse;
    const number bare_slope = charges * (phi_slope - phi * inverse) * inverse;
    pushes = bare * off * screened;
    pushes_slope = bare_slope * off * screened;
    pushes_slope += bare * (off_slope * screened + off * screened_slope);
}
// real spherical harmonics of degrees 1 to 4, of numbers or of numbers with their gradient
const auto harmonics = [](auto x, auto y, auto z, auto put) {
    using S = decltype(x);
    const auto c = [](double s) { return S(number(s)); };
    const S xx = x * x, yy = y * y, zz = z * z, xy = x * y, xz = x * z, yz = y * z;
    const S d = xx - yy, s = c(7) * zz - c(1), three = c(3) * xx - yy, other = xx - c(3) * yy;
    put(0, c($l1) * y);
    put(1, c($l1) * z);
    put(2, c($l1) * x);
    put(3, c($l2) * xy);
    put(4, c($l2) * yz);
    put(5, c($l2 / 3.4641016151377544) * (c(3) * zz - c(1)));
    put(6, c($l2) * xz);
    put(7, c($l2 / 2) * d);
    put(8, c($l3 / 4.898979485566356) * y * three);
    put(9, c($l3) * xy * z);
    put(10, c($l3 / 6.324555320336759) * y * (c(5) * zz - c(1)));
    put(11, c($l3 / 7.745966692414834) * z * (c(5) * zz - c(3)));
    put(12, c($l3 / 6.324555320336759) * x * (c(5) * zz - c(1)));
    put(13, c($l3 / 2) * d * z);
    put(14, c($l3 / 4.898979485566356) * x * other);
    put(15, c($l4) * xy * d);
    put(16, c($l4 / 1.4142135623730951) * yz * three);
    put(17, c($l4 / 2.6457513110645907) * xy * s);
    put(18, c($l4 / 3.7416573867739413) * yz * (s - c(2)));
    put(19, c($l4 / 23.664319132398465) * (c(35) * zz * zz - c(30) * zz + c(3)));
    put(20, c($l4 / 3.7416573867739413) * xz * (s - c(2)));
    put(21, c($l4 / 5.291502622129181) * d * s);
    put(22, c($l4 / 1.4142135623730951) * xz * other);
    put(23, c($l4 / 4) * (d * d - c(4) * xy * xy));
};
"""

_FORTH = """
r.data[p] = distance;
cutoff.data[p] = phi;
repulsion.data[p] = pushes;
number* to = to_i.data + 24 * p;
harmonics(u[0], u[1], u[2], [&](int m, number y) { to[m] = y; });
"""

_BACK = """
struct Sloped {
    number y, g[3];
    CUDA_CALLABLE explicit Sloped(number s) : y(s), g{0, 0, 0} {}
    CUDA_CALLABLE Sloped operator+(const Sloped& o) const { return with(y + o.y, o, 1, 1); }
    CUDA_CALLABLE Sloped operator-(const Sloped& o) const { return with(y - o.y, o, 1, -1); }
    CUDA_CALLABLE Sloped operator*(const Sloped& o) const { return with(y * o.y, o, o.y, y); }
    CUDA_CALLABLE Sloped with(number value, const Sloped& o, number a, number b) const {
        Sloped out(value);
        for (int k = 0; k < 3; ++k) out.g[k] = a * g[k] + b * o.g[k];
        return out;
    }
};
Sloped at[3] = {Sloped(u[0]), Sloped(u[1]), Sloped(u[2])};
for (int k = 0; k < 3; ++k) at[k].g[k] = 1;
number by_u[3] = {0, 0, 0};
const number* by = by_to_i.data + 24 * p;
harmonics(at[0], at[1], at[2], [&](int m, const Sloped& s) {
    for (int k = 0; k < 3; ++k) by_u[k] += by[m] * s.g[k];
});
const number along = by_u[0] * u[0] + by_u[1] * u[1] + by_u[2] * u[2];
const number by_length = by_r.data[p] + by_cutoff.data[p] * phi_slope
    + by_repulsion.data[p] * pushes_slope;
for (int k = 0; k < 3; ++k)
    pull.data[3 * p + k] = (along * u[k] - by_u[k]) * inverse - by_length * u[k];
"""


def _text(body: str, double: bool) -> str:
    text = _PAIR + body
    for degree, square in enumerate((3 / 4, 15 / 4, 105 / 4, 315 / 16), 1):
        text = text.replace(f"$l{degree}", repr((square / torch.pi) ** 0.5))
    return text.replace("$number", "double" if double else "float")


@cache
def geometry_kernels(double: bool) -> tuple[Any, Any]:
    """Return the kernels forth and back, (P,), in float64 or float32."""
    wp = warp()
    number, real = (wp.float64 if double else wp.float32), wp.float64
    long = wp.array(dtype=wp.int64)
    numbers, numbers_2d = wp.array(dtype=number), wp.array2d(dtype=number)
    kernel = wp.kernel(enable_backward=False, module="unique", grid_stride=False)

    @wp.func_native(_text(_FORTH, double))
    def forth_pair(
        p: int, vectors: numbers_2d, i: long, j: long, numbers: long, terms: numbers,
        screening: numbers, end: real, coulomb: real, r: numbers_2d, cutoff: numbers_2d,
        to_i: numbers_2d, repulsion: numbers,
    ): ...  # fmt: skip

    @kernel
    def forth(
        vectors: numbers_2d, i: long, j: long, numbers: long, terms: numbers, screening: numbers,
        end: real, coulomb: real, r: numbers_2d, cutoff: numbers_2d, to_i: numbers_2d,
        repulsion: numbers,
    ):  # fmt: skip
        p = wp.tid()
        forth_pair(
            p, vectors, i, j, numbers, terms, screening, end, coulomb, r, cutoff, to_i, repulsion
        )

    @wp.func_native(_text(_BACK, double))
    def back_pair(
        p: int, vectors: numbers_2d, i: long, j: long, numbers: long, terms: numbers,
        screening: numbers, end: real, coulomb: real, by_r: numbers_2d, by_cutoff: numbers_2d,
        by_to_i: numbers_2d, by_repulsion: numbers, pull: numbers_2d,
    ): ...  # fmt: skip

    @kernel
    def back(
        vectors: numbers_2d, i: long, j: long, numbers: long, terms: numbers, screening: numbers,
        end: real, coulomb: real, by_r: numbers_2d, by_cutoff: numbers_2d, by_to_i: numbers_2d,
        by_repulsion: numbers, pull: numbers_2d,
    ):  # fmt: skip
        p = wp.tid()
        back_pair(
            p, vectors, i, j, numbers, terms, screening, end, coulomb, by_r, by_cutoff, by_to_i,
            by_repulsion, pull,
        )  # fmt: skip

    return forth, back
