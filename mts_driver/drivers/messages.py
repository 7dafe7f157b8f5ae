"""Messages over ZeroMQ: a JSON header, then one frame of raw little-endian numbers an array.

The header names kind, version, arrays with their types and shapes, and plain values; every frame is
checked against it. Knows nothing of sockets and models.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mts_driver.errors import UserError

VERSION = 1
_TYPES = ("<f8", "|b1")
_LARGEST = 2**31
"""Bytes of an array; more is a mistake."""


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
        """Return the frames to send."""
        made = {
            name: np.asarray(a, "|b1" if a.dtype == bool else "<f8", order="C")
            for name, a in self.arrays.items()
        }
        header = {
            "version": VERSION,
            "kind": self.kind,
            "values": dict(self.values),
            "arrays": [[name, a.dtype.str, list(a.shape)] for name, a in made.items()],
        }
        return [json.dumps(header).encode(), *(a.tobytes() for a in made.values())]

    @classmethod
    def unpack(cls, frames: Sequence[bytes]) -> "Message":
        """Read frames that came from a socket.

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
        listed, values = header.get("arrays", []), header.get("values", {})
        if len(listed) != len(frames) - 1:
            raise UserError(
                f"a message of kind {kind!r} announces {len(listed)} arrays and has "
                f"{len(frames) - 1}: it was cut short."
            )
        arrays = {}
        for (name, type_, shape), raw in zip(listed, frames[1:], strict=True):
            if type_ not in _TYPES or any(not isinstance(n, int) or n < 0 for n in shape):
                raise UserError(f"array {name!r} of a message is {type_} {shape}, not readable.")
            size = int(np.prod(shape, dtype=object)) * np.dtype(type_).itemsize
            if size != len(raw) or size > _LARGEST:
                raise UserError(
                    f"array {name!r} of a message should have {size} bytes and has {len(raw)}."
                )
            arrays[name] = np.frombuffer(raw, type_).reshape(shape)
        return cls(kind, values, arrays)
