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
        try:
            header = json.loads(frames[0])
            version, kind = header["version"], header["kind"]
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(
                f"what came over ZeroMQ is no message of mts-driver ({error}): check the address."
            ) from error
        if version != VERSION:
            raise UserError(
                f"a message has version {version}, not {VERSION}: install the same mts-driver on "
                "both sides."
            )
        try:
            listed = [(str(name), str(t), tuple(shape)) for name, t, shape in header["arrays"]]
            announced, values = int(header["bytes"]), dict(header["values"])
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(f"the header of a message of kind {kind!r} lacks {error}.") from error
        if len(frames) != 2 or len(frames[1]) != announced:
            found = [len(frame) for frame in frames[1:]]
            raise UserError(
                f"a message of kind {kind!r} announces {announced} bytes of arrays and has "
                f"{found}: it was cut short, or put together wrongly."
            )
        arrays, start = {}, 0
        for name, type_, shape in listed:
            if type_ not in _SIZES or any(not isinstance(n, int) or n < 0 for n in shape):
                raise UserError(f"array {name!r} of a message is {type_} {shape}, not readable.")
            count = prod(shape)
            size = count * _SIZES[type_]
            if size > min(LARGEST, announced - start):
                raise UserError(
                    f"array {name!r} of a message should have {size} bytes, and "
                    f"{announced - start} are left."
                )
            arrays[name] = np.frombuffer(frames[1], type_, count, start).reshape(shape)
            start += size + -size % _ALIGNMENT
        if start != announced:
            raise UserError(f"a message of kind {kind!r} has {announced - start} bytes too many.")
        return cls(kind, values, arrays)
