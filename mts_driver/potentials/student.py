"""The student: a fast, strictly local potential with a cutoff of 3.5 Å.

Every atom i sees the moments of its neighbours, per channel c of learned radial functions R,

    A0 = Σ_j R(r),   A1 = Σ_j R(r) u,   A2 = Σ_j R(r) (u⊗u − 1/3),   u = r_ij/r,

their rotation invariants up to five bodies (`invariants`), and turns these into an atomic energy
with a small network for its element. The radial functions belong to the ordered pair of elements
and end at the cutoff with two continuous derivatives; a screened nuclear repulsion (ZBL) keeps
atoms apart where no data was seen. The moments are those of moment tensor potentials (Shapeev,
Multiscale Model. Simul. 14, 1153 (2016)); the receptive field is that of Cattin et al., 2510.06562.
"""

from dataclasses import asdict, dataclass

import torch
from ase.data import atomic_numbers
from torch import Tensor, nn

ZBL_EV_A = 14.399645
ZBL_SCREENING = ((0.18175, 3.1998), (0.50986, 0.94229), (0.28022, 0.4029), (0.028171, 0.20162))
MOMENTS = 10  # A0: 1; A1: x y z; A2: xx yy zz xy xz yz
INVARIANTS = 10


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """Architecture of a student; part of the header of its file.

    Attributes
    ----------
    elements : tuple of str
        Chemical symbols that it knows.
    cutoff_A : float
        Largest distance at which two atoms see each other, Å.
    channels, radial, hidden : int
        Learned radial functions, basis functions that they are made of, width of the network.
    """

    elements: tuple[str, ...]
    cutoff_A: float = 3.5
    channels: int = 16
    radial: int = 12
    hidden: int = 64

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self)


class StudentModel(nn.Module):
    """The student in plain torch: what is trained, and the reference for the fused kernel.

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
        kinds, c, k = len(config.elements), config.channels, config.radial
        z = torch.tensor([float(atomic_numbers[e]) for e in config.elements])
        self.register_buffer("z", z, persistent=False)
        self.radial = nn.Parameter(torch.randn(kinds, kinds, k, c) * (2.0 / k) ** 0.5)
        self.shift = nn.Parameter(torch.zeros(kinds, INVARIANTS * c), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(kinds, INVARIANTS * c), requires_grad=False)
        self.register_buffer("offset", torch.zeros(kinds, dtype=torch.float64))
        h, n = config.hidden, INVARIANTS * c
        self.w1 = nn.Parameter(torch.randn(kinds, n, h) / n**0.5)
        self.b1 = nn.Parameter(torch.zeros(kinds, h))
        self.w2 = nn.Parameter(torch.randn(kinds, h, h) / h**0.5)
        self.b2 = nn.Parameter(torch.zeros(kinds, h))
        self.w3 = nn.Parameter(torch.randn(kinds, h) * 0.1 / h**0.5)

    def forward(self, kind: Tensor, neighbors: Tensor, vectors: Tensor) -> Tensor:
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
        x = self.features(kind, neighbors, vectors)
        r = vectors.norm(dim=-1)
        energy = 0.5 * self.repulsion(kind[:, None], kind[neighbors], r).sum(-1)
        for e in range(len(self.config.elements)):
            atoms = (kind == e).nonzero()[:, 0]
            h = (x[atoms] - self.shift[e]) * self.scale[e]
            h = nn.functional.silu(torch.addmm(self.b1[e], h, self.w1[e]))
            h = nn.functional.silu(torch.addmm(self.b2[e], h, self.w2[e]))
            energy = energy.index_add(0, atoms, h @ self.w3[e])
        return energy

    def features(self, kind: Tensor, neighbors: Tensor, vectors: Tensor) -> Tensor:
        """Invariants of every atom, shape (M, INVARIANTS · channels)."""
        r = vectors.norm(dim=-1)
        x, y, z = (vectors / r[..., None]).unbind(-1)
        third = 1.0 / 3.0
        quadratic = (x * x - third, y * y - third, z * z - third, x * y, x * z, y * z)
        angular = torch.stack((torch.ones_like(x), x, y, z, *quadratic), 1)
        moments = torch.bmm(angular, self.radial_functions(kind, kind[neighbors], r))
        return invariants(moments).flatten(1)

    def radial_functions(self, kind: Tensor, neighbor_kind: Tensor, r: Tensor) -> Tensor:
        """R_c(r) of atoms of ``kind`` (M,) for their neighbours (M, K), shape (M, K, channels)."""
        kinds = len(self.config.elements)
        is_kind = nn.functional.one_hot(neighbor_kind, kinds).to(r.dtype)
        basis = (is_kind[..., :, None] * self.basis(r)[..., None, :]).flatten(-2)
        weights = self.radial.view(kinds, kinds * self.config.radial, self.config.channels)
        return torch.bmm(basis, weights[kind])

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


def invariants(m: Tensor) -> Tensor:
    """Rotation invariants (M, INVARIANTS, C) of the moments ``m`` (M, MOMENTS, C).

    Products are of a channel with itself and the next ones (c+1, c+2 round the ring): learned
    radial functions make any other pairing of channels equivalent to some choice of theirs.
    """
    a0, a1, a2 = m[:, 0], m[:, 1:4], m[:, 4:]
    twice = torch.tensor([1.0, 1, 1, 2, 2, 2], dtype=m.dtype, device=m.device)[:, None]
    xx, yy, zz, xy, xz, yz = a2.unbind(1)
    x, y, z = a1.unbind(1)
    v = torch.stack(
        (xx * x + xy * y + xz * z, xy * x + yy * y + yz * z, xz * x + yz * y + zz * z), 1
    )
    out = [a0]
    out += [(a1 * a1.roll(-k, -1)).sum(1) for k in range(3)]
    out += [(twice * a2 * a2.roll(-k, -1)).sum(1) for k in range(3)]
    out += [(a1 * v).sum(1), (a1.roll(-1, -1) * v).sum(1), (v * v).sum(1)]
    return torch.stack(out, 1)
