"""The codec: bytes as i-PI 3.3 writes them, arrays as the drivers see them."""

import io
import struct

import numpy as np
import pytest

from mts_driver.drivers.ipi_socket import protocol


def reader(data: bytes):
    stream = io.BytesIO(data)

    def read(count: int) -> bytes:
        found = stream.read(count)
        assert len(found) == count, "the codec asked for more than there is"
        return found

    return read, stream


def test_headers_are_twelve_bytes():
    assert protocol.header("READY") == b"READY       "
    assert len(protocol.header("FORCEREADY")) == protocol.HEADER_SIZE


@pytest.mark.parametrize(
    ("text", "parameters", "batch_size"),
    [
        (" model : so3lr , device : cpu , ", {"model": "so3lr", "device": "cpu"}, 1),
        (" model : student:a/b.x , , batch_size:8", {"model": "student:a/b.x"}, 8),
        (" batch_size:4", {}, 4),
        (" ", {}, 1),
        ("\0", {}, 1),  # ASE
        ("", {}, 1),
    ],
)
def test_init_is_read_as_servers_write_it(text, parameters, batch_size):
    read, stream = reader(struct.pack("=ii", 3, len(text)) + text.encode())
    assert protocol.read_init(read) == protocol.Init(3, parameters, batch_size)
    assert not stream.read()


def test_one_structure_has_its_cell_transposed():
    rng = np.random.default_rng(0)
    h, positions = rng.normal(size=(3, 3)), rng.normal(size=(5, 3))
    message = h.tobytes() + np.linalg.inv(h).tobytes() + struct.pack("=i", 5) + positions.tobytes()
    read, stream = reader(message)
    found, cells = protocol.read_positions(read, batch_size=1, natoms=5)
    assert found.shape == (1, 5, 3) and cells.shape == (1, 3, 3)
    assert (found[0] == positions).all()
    assert (cells[0] == h.T).all()
    assert not stream.read()


def test_a_batch_has_all_cells_before_all_positions():
    rng = np.random.default_rng(1)
    h, positions = rng.normal(size=(4, 3, 3)), rng.normal(size=(4, 2, 3))
    message = struct.pack("=i", 2)
    message += b"".join(one.tobytes() + np.linalg.inv(one).tobytes() for one in h)
    read, stream = reader(message + positions.tobytes())
    found, cells = protocol.read_positions(read, batch_size=4, natoms=2)
    assert (found == positions).all()
    assert (cells == np.swapaxes(h, 1, 2)).all()
    assert not stream.read()


@pytest.mark.parametrize("batch", [1, 3])
def test_forces_are_laid_out_as_ipi_reads_them(batch):
    rng = np.random.default_rng(2)
    energies, forces = rng.normal(size=batch), rng.normal(size=(batch, 6, 3))
    virials = rng.normal(size=(batch, 3, 3))
    extras = ["", '{"é": 1}', "x"][:batch]
    read, stream = reader(protocol.forces_message(energies, forces, virials, extras))
    assert read(12) == b"FORCEREADY  "
    assert (np.frombuffer(read(8 * batch)) == energies).all()
    assert protocol.read_int(read) == 6
    assert (np.frombuffer(read(8 * forces.size)).reshape(forces.shape) == forces).all()
    assert (np.frombuffer(read(8 * virials.size)).reshape(virials.shape) == virials).all()
    for text in extras:
        assert read(protocol.read_int(read)).decode() == text
    assert not stream.read()


def test_float32_results_travel_as_float64():
    message = protocol.forces_message(
        np.zeros(1, np.float32), np.ones((1, 1, 3), np.float32), np.zeros((1, 3, 3)), [""]
    )
    assert np.frombuffer(message[24:48]).tolist() == [1.0, 1.0, 1.0]


def test_segments_have_the_shapes_of_the_batch():
    names = b"".join(struct.pack("=i", 1) + kind.encode() for kind in "abcdef")
    read, _ = reader(names)
    assert protocol.read_segment_names(read) == dict(zip(protocol.SEGMENTS, "abcdef", strict=True))
    assert protocol.segment_shapes(7, 2)["force"] == (2, 7, 3)
