"""What peers send over ZeroMQ: messages, and all that can be wrong with them."""

import json
import math
from typing import Any

import numpy as np
from hypothesis import strategies as st
from strategies import MODEL, ODD, cells, damaged, numbers

from mts_driver.drivers.zmq.messages import Message

ODD_JSON = (
    *(None, True, False, 0, -1, 2, 2.0, 1e400, -(2**63), 2**70, "", "2", "x" * 3000, [], [[]], {}),
    *([1, 2], {"a": 1}, [None], "run", math.nan, [["x", "<f8", [1]]], [["x", "<f8"]]),
    *([["x", "<f8", [0, 2**62]]], [["x", "<f8", [1] * 99]], [["x", "|b1", [True]]]),
    *([["x", "<f8", [1]], ["x", "<f8", [0]]], [["x", "<f8", "12"]], [["x", ">f8", [1]]]),
)
KINDS = ("hello", "evaluate", "propagate", "run")
TIMESTEP, KT = 10.0, 1e-3


def structure_arrays(natoms: int, *, odd: bool) -> st.SearchStrategy[dict[str, np.ndarray]]:
    """Of a request to evaluate one structure, or several."""
    one = st.builds(
        lambda q, cell: {"q": q, "cell": cell}, numbers(natoms, 3, odd=odd), cells(odd=odd)
    )
    two = st.builds(
        lambda q, *cell: {"q": q, "cell": np.stack(cell)},
        numbers(2, natoms, 3, odd=odd),
        cells(odd=odd),
        cells(odd=odd),
    )
    return st.one_of(one, two)


@st.composite
def step_arrays(draw: st.DrawFn, natoms: int, n: int, *, noise: bool, odd: bool) -> dict[str, Any]:
    """Of a request to take steps."""
    beads, bath = draw(st.sampled_from([1, 1, 2])), draw(st.booleans())
    modes = np.array([[1.0, 1.0], [1.0, -1.0]]) / math.sqrt(2.0)
    arrays = {
        "q": draw(numbers(beads, natoms, 3, odd=odd)),
        "p": draw(numbers(beads, natoms, 3, odd=odd)),
        "masses": np.abs(draw(numbers(natoms, odd=False))) * 1e3 + 1e3,
        "cell": draw(cells(odd=odd)),
        "friction": np.full((beads, natoms), 1e-3) if bath else np.zeros(0),
        "groups": np.ones((draw(st.integers(0, 2)), natoms), bool),
        "modes": modes if beads == 2 else np.zeros(0),
        "omega": np.array([0.0, 1e-3]) if beads == 2 else np.zeros(0),
    }
    if noise:
        arrays["noise"] = draw(numbers(n, beads, natoms, 3, odd=odd)) if bath else np.zeros(0)
    return arrays


@st.composite
def questions(draw: st.DrawFn, natoms: int, *, odd: bool, kinds: Any = KINDS) -> Message:
    """Messages to a server, of the right form; some ask about what nobody can say."""
    kind = draw(st.sampled_from(kinds))
    values: dict[str, Any] = {"model": MODEL} if draw(st.booleans()) else {}
    if kind == "hello":
        return Message(kind, values)
    if kind == "evaluate":
        return Message(kind, values, draw(structure_arrays(natoms, odd=odd)))
    n = draw(st.integers(1, 3))
    values |= {"n": n, "timestep": TIMESTEP, "kT": KT, "fixcom": draw(st.booleans())}
    if kind == "run":
        values |= {
            "seeds": draw(st.lists(st.integers(0, 2**53), min_size=1, max_size=2)),
            "clip": 0.0,
        }
    return Message(kind, values, draw(step_arrays(natoms, n, noise=kind == "propagate", odd=odd)))


@st.composite
def odd_questions(draw: st.DrawFn, natoms: int) -> Message:
    """Messages to a server of which a value or an array is another."""
    one = draw(questions(natoms, odd=draw(st.booleans())))
    kind, values, arrays = one.kind, dict(one.values), dict(one.arrays)
    for _ in range(draw(st.integers(0, 2))):
        change = draw(st.sampled_from(["kind", "value", "array"]))
        if change == "kind":
            kind = draw(st.sampled_from([*KINDS, "error", "welcome", "", "größe"]))
        elif change == "value":
            names = ["n", "timestep", "kT", "fixcom", "seeds", "clip", "model"]
            odd = st.sampled_from([*ODD_JSON, 10_000, 10**9, [-1], [2**64], [0.5], [0] * 101])
            values[draw(st.sampled_from(names))] = draw(odd)
        elif arrays:
            name = draw(st.sampled_from(sorted(arrays)))
            arrays[name] = draw(other_array(arrays[name]))
            if draw(st.integers(0, 3)) == 0:
                del arrays[name]
    return Message(kind, values, arrays)


@st.composite
def other_array(draw: st.DrawFn, array: np.ndarray) -> np.ndarray:
    """The same of another shape, another type, or with an odd number."""
    change = draw(
        st.sampled_from(["odd", "type", "longer", "shorter", "axis", "flat", "none", "sign"])
    )
    if change == "odd" and array.size and array.dtype == float:
        array = array.copy()
        array.flat[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from(ODD))
        return array
    if change == "sign" and array.dtype == float:
        return -array
    if change == "type":
        return array.astype(float) if array.dtype == bool else array > 0
    if change == "longer":
        return np.concatenate([array, array]) if array.ndim else array[None]
    if change == "shorter":
        return array[:-1] if array.ndim and len(array) else np.zeros((0, 3))
    if change == "axis":
        return array[None] if draw(st.booleans()) else array[..., None]
    return array.ravel() if change == "flat" else np.zeros(())


@st.composite
def odd_frames(draw: st.DrawFn, natoms: int) -> list[bytes]:
    """Frames that a server or a client may get: truncated, swapped, of another header, anything."""
    frames = draw(odd_questions(natoms)).pack()
    for _ in range(draw(st.integers(0, 2))):
        change = draw(
            st.sampled_from(["header", "damage", "drop", "swap", "more", "bytes", "deep"])
        )
        at = draw(st.integers(0, max(0, len(frames) - 1)))
        if change == "header":
            frames = [_other_header(draw, frames[0]), *frames[1:]] if frames else [b"{}"]
        elif change == "damage" and frames:
            frames[at] = draw(damaged(frames[at]))
        elif change == "drop":
            del frames[at : at + 1]
        elif change == "swap":
            frames.reverse()
        elif change == "more":
            frames.insert(at, draw(st.sampled_from([b"", b"\0" * 8, b"{}", b"x" * 100])))
        elif change == "bytes":
            frames = draw(st.lists(st.binary(max_size=50), max_size=5))
        elif change == "deep":
            frames = [draw(st.sampled_from([b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5000])), b""]
    return frames


def _other_header(draw: st.DrawFn, frame: bytes) -> bytes:
    try:
        header = json.loads(frame)
        assert isinstance(header, dict)
    except (ValueError, RecursionError, AssertionError):
        return b"{}"
    name = draw(st.sampled_from(["version", "kind", "values", "arrays", "bytes", "more"]))
    if draw(st.integers(0, 4)) == 0:
        header.pop(name, None)
    elif name == "bytes" and draw(st.booleans()):
        header[name] = draw(st.sampled_from([8, -8, 2**31, 2**63, 24.0, "24", True]))
    else:
        header[name] = draw(st.sampled_from(ODD_JSON))
    return json.dumps(header).encode()


def any_messages() -> st.SearchStrategy[Message]:
    """Messages of any arrays and values that the format can hold."""
    shapes = st.lists(st.integers(0, 3), max_size=4).map(tuple)
    floats = shapes.flatmap(lambda shape: numbers(*shape))
    masks = shapes.map(lambda shape: np.ones(shape, bool))
    plain = st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.floats(-1, 1)
    )
    return st.builds(
        Message,
        st.text(max_size=12),
        st.dictionaries(st.text(max_size=5), plain, max_size=3),
        st.dictionaries(st.text(max_size=5), st.one_of(floats, masks), max_size=3),
    )
