"""What the fuzz tests draw: numbers, bytes and the ways in which peers go wrong."""

import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

MODEL = "ase:well"
ODD = (math.nan, math.inf, -math.inf, 1e300, -1e300, 1e155, 1e16, 5e-324, -0.0, 0.0)
ODD_COUNTS = (-1, 0, 1, 2, 4, -(2**31), 2**31 - 1, 2**24, 2**20 + 1, 1000)
HEADERS = ("STATUS", "INIT", "POSDATA", "GETFORCE", "EXIT")
PARAMETERS = (
    *("", " ", "\0", "model : ase:well", f"model:{MODEL}, device : cpu , ", " model : so3lr,"),
    *("batch_size:2", "batch_size : 3", "batch_size:1", "model : x , batch_size:2", "batch_size:0"),
    *("batch_size:-1", "batch_size:²", "batch_size:", "batch_size:1e3", "batch_size:007"),
    *("batch_size:99999999999", "batch_size:4097", "batch_size:" + "9" * 5000, "batch_size:2.0"),
    *("model : ase:größe", "::::", ",,,", "model", "batch_size:2,batch_size:1", "a:b:c"),
)


def cases(share: int) -> Callable[[Any], Any]:
    """Give a test its share, in thousandths, of the examples that the profile has for all."""
    return settings(max_examples=max(1, settings().max_examples * share // 1000))


def numbers(*shape: int, odd: bool = True) -> st.SearchStrategy[np.ndarray]:
    """Arrays of numbers between -3 and 3, some with one that is odd."""

    def make(seed: int, poked: int, value: float) -> np.ndarray:
        a = np.random.default_rng(seed).uniform(-3.0, 3.0, size=shape)
        if odd and poked < a.size:
            a.flat[poked] = value
        return a

    # mostly none: what follows a number that ends everything is never looked at
    places = st.one_of(st.just(10**9), st.just(10**9), st.integers(0, math.prod(shape)))
    return st.builds(make, st.integers(0, 2**32), places, st.sampled_from(ODD))


@st.composite
def cells(draw: st.DrawFn, *, odd: bool = True) -> np.ndarray:
    """Matrices (3, 3), rows are lattice vectors: boxes, zeros, sheared, left-handed, flat, odd."""
    kinds = ["zeros", "box", "sheared", "left"] + ["flat", "plane", "tiny", "huge", "odd"] * odd
    kind = draw(st.sampled_from(kinds))
    cell = np.diag(np.random.default_rng(draw(st.integers(0, 9))).uniform(15.0, 30.0, size=3))
    if kind == "zeros":
        return np.zeros((3, 3))
    if kind == "sheared":
        cell[np.tril_indices(3, -1)] = draw(numbers(3, odd=False))
    elif kind == "left":
        cell = cell[[1, 0, 2]]
    elif kind == "flat":
        cell[2] = cell[1]
    elif kind == "plane":
        cell[draw(st.integers(0, 2))] = 0.0
    elif kind in ("tiny", "huge"):
        cell *= draw(st.sampled_from({"tiny": (1e-2, 1e-9, 1e-200), "huge": (1e6, 1e200)}[kind]))
    elif kind == "odd":
        cell = draw(numbers(3, 3))
    return cell


def header(name: str) -> bytes:
    return name.encode().ljust(12)[:12]


def init(replica: int, text: str, *, length: int | None = None) -> bytes:
    raw = text.encode()
    return (
        header("INIT") + struct.pack("=ii", replica, len(raw) if length is None else length) + raw
    )


def inits() -> st.SearchStrategy[bytes]:
    text = st.one_of(st.sampled_from(PARAMETERS), st.text(max_size=20))
    lengths = st.one_of(st.none(), st.none(), st.sampled_from(ODD_COUNTS))
    return st.builds(init, st.integers(-(2**31), 2**31 - 1), text, length=lengths)


def posdata(h: np.ndarray, q: np.ndarray, *, count: int | None = None) -> bytes:
    """POSDATA of cells (B, 3, 3), columns are lattice vectors, and positions (B, N, 3)."""
    number = struct.pack("=i", q.shape[1] if count is None else count)
    both = np.stack([h, np.linalg.pinv(np.nan_to_num(h, posinf=0.0, neginf=0.0))], 1).tobytes()
    parts = (both, number) if len(q) == 1 else (number, both)
    return header("POSDATA") + b"".join(parts) + q.tobytes()


@st.composite
def structures(draw: st.DrawFn, natoms: int, batch: int, *, odd: bool) -> tuple[Any, Any]:
    """Cells (B, 3, 3) with lattice vectors as columns, and positions (B, N, 3)."""
    h = np.stack([draw(cells(odd=odd)).T for _ in range(batch)])
    return h, draw(numbers(batch, natoms, 3, odd=odd))


@st.composite
def posdatas(draw: st.DrawFn, natoms: int, batch: int, *, odd: bool = True) -> bytes:
    h, q = draw(structures(natoms, batch, odd=odd))
    claims = [None, None, None, *ODD_COUNTS, natoms + 1] if odd else [None]
    return posdata(h, q, count=draw(st.sampled_from(claims)))


@st.composite
def talks(draw: st.DrawFn, natoms: int) -> bytes:
    """All that a server says to a driver, up to the moment when it closes the connection."""
    good = draw(st.booleans())
    batch = draw(st.sampled_from([1, 1, 2, 3]))
    messages = []
    if draw(st.integers(0, 9)):
        text = f"model : {MODEL}" + (f" , batch_size:{batch}" if batch > 1 else "")
        messages += [header("STATUS")] * draw(st.integers(0, 1)) + [init(0, text)]
    else:
        batch = 1
    for _ in range(draw(st.integers(0, 3))):
        messages += [header("STATUS")] * draw(st.integers(0, 1))
        odd = not good and draw(st.booleans())
        messages += [draw(posdatas(natoms, batch, odd=odd)), header("GETFORCE")]
    messages += [header("EXIT")] * draw(st.integers(0, 1))
    if good:
        return b"".join(messages)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(messages)))
        messages.insert(at, draw(_strange(natoms, batch)))
    if draw(st.booleans()):
        messages = draw(st.permutations(messages))
    return draw(damaged(b"".join(messages)))


def _strange(natoms: int, batch: int) -> st.SearchStrategy[bytes]:
    """Messages that do not belong here."""
    return st.one_of(
        st.sampled_from(HEADERS).map(header),
        inits(),
        posdatas(natoms, 1),
        posdatas(natoms, batch),
        posdatas(natoms + 1, batch),
        st.text(min_size=1, max_size=12).map(lambda text: text.encode().ljust(12)[:12]),
        st.binary(min_size=1, max_size=40),
        st.sampled_from([b"GET / HTTP/1.1\r\n\r\n", b"status      ", b"STATUS\0\0\0\0\0\0"]),
    )


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes of which some were lost, added, changed or doubled on the way; often none."""
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        end = min(len(data), at + draw(st.sampled_from([1, 4, 8, 12, 100])))
        piece = data[at:end]
        changed = {
            "cut": b"",
            "lost": data[end:],
            "doubled": piece + data[at:],
            "turned": bytes(b ^ draw(st.sampled_from([1, 0x80, 0xFF])) for b in piece[:1])
            + data[at + 1 :],
            "nulls": bytes(len(piece)) + data[end:],
            "added": draw(st.binary(min_size=1, max_size=12)) + data[at:],
        }
        data = data[:at] + changed[draw(st.sampled_from(sorted(changed)))]
    return data


def parts() -> st.SearchStrategy[list[int]]:
    """Sizes of the parts in which bytes arrive, over and over again."""
    return st.one_of(
        st.just([1 << 20]), st.just([1]), st.lists(st.integers(1, 30), min_size=1, max_size=5)
    )
