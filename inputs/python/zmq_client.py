"""A client of `mts serve --zmq` with numpy and pyzmq alone, to build into other programs.

    mts serve so3lr --zmq ipc:///tmp/teacher --structure inputs/water64/start.extxyz

docs/pages/protocol.md describes the messages. All numbers are in atomic units.
"""

import json
import sys

import numpy as np
import zmq

VERSION = 2


class Driver:
    """Asks a driver, one question at a time."""

    def __init__(self, address, timeout_s=600.0):
        self._socket = zmq.Context.instance().socket(zmq.REQ)
        self._socket.setsockopt(zmq.RCVTIMEO, int(1e3 * timeout_s))
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(address)

    def ask(self, kind, values=None, **arrays):
        """Send values and arrays; return those of the answer."""
        listed, data = [], b""
        for name, array in arrays.items():
            type_ = "|b1" if np.asarray(array).dtype == bool else "<f8"
            array = np.asarray(array, type_, order="C")
            listed.append([name, type_, array.shape])
            data += array.tobytes() + bytes(-array.nbytes % 8)
        header = {"version": VERSION, "kind": kind, "values": values or {}, "arrays": listed}
        header["bytes"] = len(data)
        self._socket.send_multipart([json.dumps(header).encode(), data])
        first, second = self._socket.recv_multipart()
        header, found, start = json.loads(first), {}, 0
        if header["kind"] == "error":
            raise RuntimeError(header["values"]["text"])
        for name, type_, shape in header["arrays"]:
            count = int(np.prod(shape))
            found[name] = np.frombuffer(second, type_, count, start).reshape(shape)
            start += found[name].nbytes + -found[name].nbytes % 8
        return header["values"], found

    def evaluate(self, positions, cell, model=""):
        """Return energy (), forces (N, 3), virial (3, 3) of positions (N, 3) in a cell (3, 3)."""
        _, found = self.ask("evaluate", {"model": model}, q=positions, cell=cell)
        return found["energy"], found["forces"], found["virial"]


if __name__ == "__main__":
    from ase.io import read
    from ase.units import Bohr, Hartree

    driver = Driver(sys.argv[1])
    atoms = read(sys.argv[2])
    print(driver.ask("hello")[0])
    energy, forces, _ = driver.evaluate(atoms.positions / Bohr, atoms.cell.array / Bohr)
    print(f"{float(energy) * Hartree:.4f} eV, largest force {abs(forces).max():.4f} Hartree/Bohr")
