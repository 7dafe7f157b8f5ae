"""The student's kernels as C++, put together: what each launch does."""

from string import Template

from mts_driver.potentials.student.device.source import Sizes, contract, inputs, layer, moments
from mts_driver.potentials.student.device.source_back import gradient, pull

FIRST_LAYER = """
s += net.b1.data[H * e + h];
work.a1.data[H * a + h] = s;
x[h] = s * sigmoid(s);
"""

TELL = """
if (h < H) {
    work.a2.data[H * a + h] = s + net.b2.data[H * e + h];
} else {
    work.raw.data[P * a + h - H] = s;
    work.message.data[P * a + h - H] = number(1) + s * shrinks(s, net.message_bound);
}
"""

_SECOND_LAYER = """
SHARED number above[H];
for (int h = t; h < H; h += T) above[h] = work.a2.data[H * a + h];
WAIT();
"""


def second_sum(sizes: Sizes) -> str:
    """Return the second sum, and what both layers make of it into ``above``."""
    if not sizes.messages:
        return _SECOND_LAYER
    parts = moments(sizes, second=True), contract(sizes, second=True), inputs(sizes, second=True)
    ten = 10 * sizes.messages
    return "".join(parts) + _SECOND_LAYER + layer(sizes, "w2b", ten, sizes.hidden, "above[h] += s;")


_ENERGY = """
SHARED number parts_of_energy[H];
for (int h = t; h < H; h += T) {
    const number w3 = net.w3.data[H * e + h];
    parts_of_energy[h] = above[h] * sigmoid(above[h]) * w3;
    x[h] = w3 * silu_slope(above[h]);
}
WAIT();
if ($whole && t == 0) {
    number s = 0;
    for (int part = 0; part < $shares; ++part) s += work.repulsion.data[$shares * a + part];
    for (int h = 0; h < H; ++h) s += parts_of_energy[h];
    energy.data[a] = s;
}
"""


def energy(sizes: Sizes, *, whole: bool) -> str:
    """Return the energy, and the way back to the gradient by the second sum and first layer."""
    p, hidden = sizes.messages, sizes.hidden
    end = "if (h < H) work.g1.data[H * a + h] = s; else x[h - H] = s;"
    text = Template(_ENERGY).substitute(whole=int(whole), shares=sizes.shares(sizes.channels))
    text += layer(sizes, "back2", hidden, hidden + 10 * p, end)
    return text + (gradient(sizes, second=True, by="x") if p else "")


_READ = """
for (int i = t; i < 10 * C; i += T) m[i] = work.m1.data[10 * C * a + i];
WAIT();
"""

_SENT = """
SHARED number told[P];
for (int c = t; c < P; c += T) {
    number s = 0;
    for (int part = 0; part < $shares; ++part) s += tells[P * part + c];
    const number by = shrinks(work.raw.data[P * a + c], net.message_bound);
    told[c] = s * by * by * by;
}
WAIT();
"""

_FIRST_BACK = """
for (int h = t; h < H; h += T) {
    number s = work.g1.data[H * a + h];
    $told
    x[h] = s * silu_slope(work.a1.data[H * a + h]);
}
WAIT();
"""


def first_gradient(sizes: Sizes, *, whole: bool) -> str:
    """Return what the second sums pull, and the way back to the gradient by the first."""
    p, hidden, text, told = sizes.messages, sizes.hidden, "", ""
    if p:
        shares = sizes.shares(p)
        text = f"SHARED number tells[{shares} * P];"
        text += pull(sizes, second=True, whole=whole, more=False)
        text += Template(_SENT).substitute(shares=shares)
        weights = "net.message.data[(H * e + h) * P + c]"
        told = f"for (int c = 0; c < P; ++c) s += told[c] * {weights};"
    text += Template(_FIRST_BACK).substitute(told=told) + _READ + contract(sizes, second=False)
    text += layer(sizes, "back1", hidden, 10 * sizes.channels, "x[h] = s;")
    return text + gradient(sizes, second=False, by="x")


_PUSH = """
for (int c = t; c < $Q; c += T) {
    for (int j = 0; j < 3; ++j) {
        const number along = x[$at + c] * m[(1 + j) * $Q + c];
        parts[3 * ($at / 2 + c) + j] = along + x[$at + $Q + c] * w[j * $Q + c];
    }
}
WAIT();
"""

_PUSHED = """
for (int j = t; j < 3; j += T) {
    double s = 0.0;
    for (int c = 0; c < C + P; ++c) s += parts[3 * c + j];
    forces.data[3 * a + j] = s;
}
"""


def push(sizes: Sizes, outputs: int) -> str:
    """Return the forces of a direct student: vectors of both sums, weighted by the network."""
    c, p = sizes.channels, sizes.messages
    text = "for (int h = t; h < H; h += T) x[h] = above[h] * sigmoid(above[h]);\nWAIT();"
    text += layer(sizes, "w3", sizes.hidden, outputs, "x[h] = s;")
    if p:
        text += Template(_PUSH).substitute(Q=p, at=2 * c)
    text += _READ + contract(sizes, second=False)
    return text + Template(_PUSH).substitute(Q=c, at=0) + _PUSHED
