"""The student: a fast potential with a cutoff of 3.5 Å and one message pass.

Every atom i sums over its neighbours, per channel c of learned radial functions R,

    A0 = Σ_j R(r),   A1 = Σ_j R(r) u,   A2 = Σ_j R(r) (u⊗u − 1/3),   u = r_ij/r,

and forms their rotation invariants up to five bodies (`invariants`). A small network for its
element reads them and sends one number per channel, q_j, to the neighbours, who form the same sums
once more with q_j R'(r) for R(r): what a neighbour counts for depends on what it sees itself. A
second network turns the invariants of both sums into an atomic energy, or, in the direct student,
into weights of the vectors A1 and A2·A1, whose sum is the force.

The radial functions belong to the ordered pair of elements and end at the cutoff with two
continuous derivatives. Outside the training data the student stays tame: the inputs of the networks
are bounded, and a screened nuclear repulsion (ZBL) keeps atoms apart. The moments are those of
moment tensor potentials (Shapeev, Multiscale Model. Simul. 14, 1153 (2016)); the receptive field,
3.5 Å and one message pass, is that of Cattin et al., arXiv 2510.06562; the direct student follows
their arXiv 2602.14975.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from ase.data import atomic_numbers
from torch import Tensor, nn

from mts_driver.errors import UserError

ZBL_EV_A = 14.399645
ZBL_SCREENING = ((0.18175, 3.1998), (0.50986, 0.94229), (0.28022, 0.4029), (0.028171, 0.20162))
MOMENTS = 10  # A0: 1; A1: x y z; A2: xx yy zz xy xz yz
INVARIANTS = 10
INPUT_BOUND = 10.0
"""Largest magnitude of a network input, in standard deviations of the training data."""
MESSAGE_BOUND = 2.0
"""Most by which what an atom sends differs from 1: the second sum enters to the fourth power, and
torn bonds that sent 200 had spikes of force every 0.05 Å."""


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """Architecture of a student; part of the header of its file.

    Attributes
    ----------
    elements : tuple of str
        Chemical symbols that it knows.
    cutoff_A : float
        Largest distance at which two atoms see each other, Å.
    channels, messages, radial, hidden : int
        Learned radial functions of the first sum and of the message pass (0: none, a strictly
        local student), basis functions that they are made of, width of the networks.
    direct : bool
        Forces straight from the network instead of from the slope of an energy: about half the
        cost, and no energy is conserved.
    """

    elements: tuple[str, ...]
    cutoff_A: float = 3.5
    channels: int = 16
    messages: int = 8
    radial: int = 12
    hidden: int = 64
    direct: bool = False

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self)


class StudentModel(nn.Module):
    """The student in plain torch: the reference for the fused kernels.

    Parameters
    ----------
    config : StudentConfig
        The architecture.
    """

    z: Tensor
    offset: Tensor

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        kinds, c, p, k = len(config.elements), config.channels, config.messages, config.radial
        h, first, second = config.hidden, INVARIANTS * c, INVARIANTS * p
        z = torch.tensor([float(atomic_numbers[e]) for e in config.elements])
        self.register_buffer("z", z, persistent=False)
        self.register_buffer("offset", torch.zeros(kinds, dtype=torch.float64))

        def normal(*shape: int, variance: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape) * variance**0.5)

        def constant(*shape: int, value: float, trained: bool) -> nn.Parameter:
            return nn.Parameter(torch.full(shape, value), requires_grad=trained)

        def smooth(channels: int) -> nn.Parameter:
            # slow harmonics first: what no data has touched, such as rare pairs, stays smooth
            harmonic = torch.arange(1, k + 1)[:, None]
            return nn.Parameter(torch.randn(kinds, kinds, k, channels) / harmonic)

        self.radial = smooth(c)
        self.shift = constant(kinds, first, value=0.0, trained=False)
        self.scale = constant(kinds, first, value=1.0, trained=False)
        self.w1 = normal(kinds, first, h, variance=1 / first)
        self.b1 = constant(kinds, h, value=0.0, trained=True)
        if p:
            self.radial2 = smooth(p)
            self.shift2 = constant(kinds, second, value=0.0, trained=False)
            self.scale2 = constant(kinds, second, value=1.0, trained=False)
            # all neighbours count alike at first; a random start trains more slowly
            self.wq = normal(kinds, h, p, variance=0.01 / h)
        self.w2 = normal(kinds, h + second, h, variance=2 / (h + second))
        self.b2 = constant(kinds, h, value=0.0, trained=True)
        if config.direct:
            self.w3 = normal(kinds, h, 2 * (c + p), variance=0.01 / h)
        else:
            self.w3 = normal(kinds, h, variance=0.01 / h)

    def energies(self, kind: Tensor, neighbors: Tensor, vectors: Tensor) -> Tensor:
        """Atomic energies without the free-atom ``offset``, eV, shape (M,).

        Parameters
        ----------
        kind : int Tensor, shape (M,)
            Which of ``config.elements`` every atom is.
        neighbors : int Tensor, shape (M, K)
            Atoms within the cutoff of each atom; rows are padded with any atom.
        vectors : Tensor, shape (M, K, 3)
            From the atom to its neighbour, Å; beyond the cutoff in the padding.
        """
        r = vectors.norm(dim=-1)
        pairs = 0.5 * self.repulsion(kind[:, None], kind[neighbors], r).sum(-1)
        return pairs + self._output(kind, neighbors, vectors)[0]

    def direct_forces(self, kind: Tensor, neighbors: Tensor, vectors: Tensor) -> Tensor:
        """Return forces of a direct student, their mean still in them, eV/Å, shape (M, 3)."""
        weights, moments = self._output(kind, neighbors, vectors)
        return direct_forces(weights, moments)

    def _output(self, kind, neighbors, vectors):
        order = kind.argsort(stable=True)
        counts = torch.bincount(kind, minlength=len(self.config.elements)).tolist()
        back = order.argsort()
        moments = [self.moments(self.radial, kind, neighbors, vectors)]
        h, q = self.read(invariants(moments[0])[order].flatten(1), counts)
        second = None
        if self.config.messages:
            moments.append(self.moments(self.radial2, kind, neighbors, vectors, q[back]))
            second = invariants(moments[1])[order].flatten(1)
        return self.decide(h, second, counts)[back], moments

    def moments(
        self,
        radial: Tensor,
        kind: Tensor,
        neighbors: Tensor,
        vectors: Tensor,
        message: Tensor | None = None,
    ) -> Tensor:
        """A0, A1 and A2 of every atom, (M, MOMENTS, C), with the messages (M, C) of neighbours."""
        r = vectors.norm(dim=-1)
        x, y, z = (vectors / r[..., None]).unbind(-1)
        third = 1.0 / 3.0
        quadratic = (x * x - third, y * y - third, z * z - third, x * y, x * z, y * z)
        angular = torch.stack((torch.ones_like(x), x, y, z, *quadratic), 1)
        kinds = len(self.config.elements)
        is_kind = nn.functional.one_hot(kind[neighbors], kinds).to(r.dtype)
        basis = (is_kind[..., :, None] * self.basis(r)[..., None, :]).flatten(-2)
        functions = torch.bmm(basis, radial.flatten(1, 2)[kind])
        if message is not None:
            functions = functions * message[neighbors]
        return torch.bmm(angular, functions)

    def read(self, first: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return what atoms make of their invariants (M, hidden) and what they send (M, messages).

        Atoms are sorted by element, ``counts`` of each.
        """
        state, message = [], []
        for e, x in enumerate(first.split(counts)):
            x = bounded((x - self.shift[e]) * self.scale[e])
            state.append(nn.functional.silu(torch.addmm(self.b1[e], x, self.w1[e])))
            if self.config.messages:
                message.append(1.0 + bounded(state[-1] @ self.wq[e], MESSAGE_BOUND))
        return torch.cat(state), torch.cat(message) if message else first[:, :0]

    def decide(self, state: Tensor, second: Tensor | None, counts: Sequence[int]) -> Tensor:
        """Atomic energies (M,), or weights of the vectors of the direct student; sorted atoms."""
        out, start = [], 0
        for e, x in enumerate(state.split(counts)):
            if second is not None:
                y = second[start : start + counts[e]]
                x = torch.cat((x, bounded((y - self.shift2[e]) * self.scale2[e])), 1)
            start += counts[e]
            h = nn.functional.silu(torch.addmm(self.b2[e], x, self.w2[e]))
            out.append(h @ self.w3[e])
        return torch.cat(out)

    def basis(self, r: Tensor) -> Tensor:
        """Spherical Bessel functions of order 0 under the cutoff polynomial, (…, radial)."""
        x = (r / self.config.cutoff_A)[..., None]
        n = torch.arange(1, self.config.radial + 1, dtype=r.dtype, device=r.device)
        return torch.sinc(n * x) * n**0.5 * smooth_cutoff(x)

    def repulsion(self, kind_i: Tensor, kind_j: Tensor, r: Tensor) -> Tensor:
        """Ziegler-Biersack-Littmark energy of every pair, eV, times the cutoff polynomial."""
        z_i, z_j = self.z[kind_i].to(r.dtype), self.z[kind_j].to(r.dtype)
        scaled = r * (z_i**0.23 + z_j**0.23) / (0.88534 * 0.529177)
        screening = sum(a * torch.exp(-b * scaled) for a, b in ZBL_SCREENING)
        return ZBL_EV_A * z_i * z_j / r * screening * smooth_cutoff(r / self.config.cutoff_A)


def smooth_cutoff(x: Tensor) -> Tensor:
    """(1 − x²)³ inside x < 1, zero outside: value, slope and curvature vanish at the cutoff."""
    return (1.0 - x * x).clamp_min(0.0) ** 3


def bounded(x: Tensor, most: float = INPUT_BOUND) -> Tensor:
    """Return x/√(1 + (x/most)²), never more than ``most``, however torn a structure."""
    return x * torch.rsqrt(1.0 + (x / most) ** 2)


def bounded_slope(x: Tensor, most: float) -> Tensor:
    """Return the derivative of `bounded`."""
    return torch.rsqrt(1.0 + (x / most) ** 2) ** 3


def invariants(m: Tensor) -> Tensor:
    """Rotation invariants (M, INVARIANTS, C) of the moments ``m`` (M, MOMENTS, C).

    Products are of a channel with itself and the next ones (c+1, c+2 round the ring): learned
    radial functions make any other pairing of channels equivalent to some choice of theirs.
    """
    a0, a1, a2 = m[:, 0], m[:, 1:4], m[:, 4:]
    twice = torch.tensor([1.0, 1, 1, 2, 2, 2], dtype=m.dtype, device=m.device)[:, None]
    v = contracted(a1, a2)
    out = [a0]
    out += [(a1 * a1.roll(-k, -1)).sum(1) for k in range(3)]
    out += [(twice * a2 * a2.roll(-k, -1)).sum(1) for k in range(3)]
    out += [(a1 * v).sum(1), (a1.roll(-1, -1) * v).sum(1), (v * v).sum(1)]
    return torch.stack(out, 1)


def contracted(a1: Tensor, a2: Tensor) -> Tensor:
    """Return the vectors A2·A1, (M, 3, C)."""
    xx, yy, zz, xy, xz, yz = a2.unbind(1)
    x, y, z = a1.unbind(1)
    return torch.stack(
        (xx * x + xy * y + xz * z, xy * x + yy * y + yz * z, xz * x + yz * y + zz * z), 1
    )


def direct_forces(weights: Tensor, moments: Sequence[Tensor]) -> Tensor:
    """Σ_c w_c A1_c + w'_c (A2·A1)_c over the channels of all ``moments``, shape (M, 3)."""
    vectors = [v for m in moments for v in (m[:, 1:4], contracted(m[:, 1:4], m[:, 4:]))]
    return torch.einsum("mxc,mc->mx", torch.cat(vectors, -1), weights)


def check_config(config: StudentConfig) -> None:
    """Raise a `UserError` where an architecture cannot be built."""
    for name, least in (("channels", 4), ("messages", 0), ("radial", 4), ("hidden", 8)):
        value = getattr(config, name)
        if value < least or (name == "messages" and 0 < value < 4):
            allowed = "0 (a local student) or at least 4" if name == "messages" else f">= {least}"
            raise UserError(f"{name}={value} is too small for a student: use {allowed}.")
    if not 2.0 <= config.cutoff_A <= 8.0:
        raise UserError(
            f"cutoff_A={config.cutoff_A:g} is not a distance for a student: use 2 to 8 Å."
        )
