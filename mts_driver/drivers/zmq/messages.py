"""Messages over ZeroMQ: a frame with a JSON header, and one with all numbers back to back.

The header names version, kind, arrays with their types and shapes, the bytes of all of them, and
plain values; the second frame has the arrays in that order, little-endian, each from a multiple of
8 bytes on. Everything is checked against the header. Knows nothing of sockets and models.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from mts_driver.errors import UserError

VERSION = 2
LARGEST = 2**31
"""Bytes of a message; more is a mistake."""
LONGEST_HEADER = 1 << 22
"""Bytes of the first frame; the seeds of 10⁵ steps have 2 MB."""
LONGEST_KIND = 40
MOST_AXES = 8
ANSWERS = {"hello": "welcome", "evaluate": "evaluated"}
"""Kinds of answers, where they have not the name of the question."""
_SIZES = {"<f8": 8, "|b1": 1}
_ALIGNMENT = 8


@dataclass(frozen=True)
class Message:
    """A request or an answer.

    Attributes
    ----------
    kind : str
        ``evaluate``, ``propagate``, ``hello`` and their answers, or ``error``.
    values : dict
        Plain values.
    arrays : dict of str to ndarray
        Of float64 or bool.
    """

    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    def pack(self) -> list[bytes]:
        """Return the two frames to send."""
        listed: list[tuple[str, str, tuple[int, ...]]] = []
        parts: list[Any] = []
        total = 0
        for name, array in self.arrays.items():
            type_ = "|b1" if array.dtype == bool else "<f8"
            a = np.asarray(array, type_, order="C")
            listed.append((name, type_, a.shape))
            gap = -a.nbytes % _ALIGNMENT
            parts += [a, bytes(gap)] if gap else [a]
            total += a.nbytes + gap
        header = {
            "version": VERSION,
            "kind": self.kind,
            "values": dict(self.values),
            "arrays": listed,
            "bytes": total,
        }
        return [json.dumps(header).encode(), b"".join(parts)]

    @classmethod
    def unpack(cls, frames: Sequence[bytes]) -> "Message":
        """Read frames that came from a socket; the arrays are read-only views of the second.

        Raises
        ------
        UserError
            If they are no message of this version, or an array has not the size it should have.
        """
        header = _header(frames)
        kind, announced = header["kind"], header["bytes"]
        if len(frames) != 2 or len(frames[1]) != announced:
            found = [len(frame) for frame in frames[1:3]]
            raise UserError(
                f"a message of kind {kind!r} announces {announced} bytes of arrays and has "
                f"{found} in {len(frames) - 1} frames: it was cut short, or put together wrongly."
            )
        arrays: dict[str, np.ndarray] = {}
        start = 0
        for name, type_, shape in header["arrays"]:
            count = prod(shape)
            size = count * _SIZES[type_]
            if size > min(LARGEST, announced - start):
                raise UserError(
                    f"array {name!r} of a message should have {size} bytes, and "
                    f"{announced - start} are left."
                )
            if name in arrays:
                raise UserError(f"a message of kind {kind!r} has two arrays {name!r}.")
            arrays[name] = np.frombuffer(frames[1], type_, count, start).reshape(shape)
            start += size + -size % _ALIGNMENT
        if start != announced:
            raise UserError(f"a message of kind {kind!r} has {announced - start} bytes too many.")
        return cls(kind, header["values"], arrays)

    def require(self, shapes: Mapping[str, tuple[int | None, ...]]) -> dict[str, np.ndarray]:
        """Return the arrays of these names if they are those that an answer should have.

        Parameters
        ----------
        shapes : dict of str to tuple
            Of float64, finite; None for any number.

        Raises
        ------
        UserError
            If one lacks, or has another type or shape, or is not finite.
        """
        for name, shape in shapes.items():
            array = self.arrays.get(name)
            if array is None or array.dtype == bool or not _fits(array.shape, shape):
                found = "nothing" if array is None else f"{array.dtype} {array.shape}"
                raise UserError(
                    f"an answer of kind {self.kind!r} has {found} as {name!r} where float64 "
                    f"{shape} is expected: the driver must serve the structure that runs, and the "
                    "same version of mts-driver."
                )
            if not np.isfinite(array.sum()):
                raise UserError(f"an answer of kind {self.kind!r} has {name!r} that is not finite.")
        return {name: self.arrays[name] for name in shapes}


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        n is None or m == n for m, n in zip(shape, wanted, strict=True)
    )


def _header(frames: Sequence[bytes]) -> dict[str, Any]:
    """Read the first frame and check it against itself; raises as `Message.unpack`."""
    try:
        if len(frames[0]) > LONGEST_HEADER:
            raise ValueError(f"{len(frames[0])} bytes of header")
        header = json.loads(frames[0])
        version, kind = header["version"], header["kind"]
        if not isinstance(kind, str) or len(kind) > LONGEST_KIND:
            raise TypeError("its kind is no word")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(
            f"what came over ZeroMQ is no message of mts-driver ({error}): check the address."
        ) from error
    if version != VERSION:
        raise UserError(
            f"a message has version {str(version)[:40]}, not {VERSION}: install the same "
            "mts-driver on both sides."
        )
    try:
        listed = [(name, type_, tuple(shape)) for name, type_, shape in header["arrays"]]
        announced, values = header["bytes"], header["values"]
        if type(announced) is not int or type(values) is not dict:
            raise TypeError("a number of bytes, or values by their names")
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"the header of a message of kind {kind!r} lacks {error}.") from error
    for name, type_, shape in listed:
        readable = type(name) is str and type(type_) is str and type_ in _SIZES
        whole = all(type(n) is int and 0 <= n <= LARGEST for n in shape)
        if not (readable and whole and len(shape) <= MOST_AXES):
            raise UserError(
                f"array {str(name)[:40]!r} of a message is {str(type_)[:40]} {str(shape)[:80]}, "
                "not readable."
            )
    return {"kind": kind, "values": values, "arrays": listed, "bytes": announced}
