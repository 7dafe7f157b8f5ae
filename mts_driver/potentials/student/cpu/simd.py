"""Short vectors of a fixed number of lanes for numba kernels, kept in registers.

numba has loops over arrays, which LLVM unrolls into scalars where their length is a constant and
surrounds with checks where it is not. A value of the type made here is one SIMD register, or as
many as it takes, on any processor, and ``a * b + c`` is one fused instruction.

    v = load(array, offset, LANES)     LANES numbers of a C-contiguous array, from a flat index on
    v = load(array, offset, w)         as many as w has
    x = one(array, offset)             a number
    v = zeros(array, LANES)            of the array's type
    store(array, offset, v)
    v + w, v - w, v * w, v * x         lane by lane; x is a number
    roll(v, k)                         lane c takes the number of lane c + k, round the ring
    total(v), size(v)                  the sum over all lanes; their number
    inverse(v), root(v), largest(v, w) 1/v, √v, and the larger of two, lane by lane
    exponential(v)                     eᵛ, to some 1e-7 (float32) or 1e-14 (float64)

``LANES`` and ``k`` must be constants where a kernel is compiled, such as numbers of an enclosing
function.
"""

import math
import operator
import zlib
from pathlib import Path
from types import ModuleType

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, overload, register_model

_FAST = ("fast",)  # sums may be reordered, as everywhere in these kernels
_I32 = ir.IntType(32)


def stamp(*modules: ModuleType) -> int:
    """Return a number that changes with this file and with those of the modules.

    numba's cache notices a change of a kernel's own file only: a kernel that names the stamp of
    what it calls is compiled again when that has changed.
    """
    files = [Path(__file__), *(Path(str(module.__file__)) for module in modules)]
    return zlib.crc32(b"".join(file.read_bytes() for file in files))


class Lanes(types.Type):
    """The numba type of ``count`` numbers of type ``dtype``."""

    def __init__(self, dtype: types.Float, count: int) -> None:
        self.dtype, self.count = dtype, count
        super().__init__(name=f"Lanes({dtype} x {count})")


@register_model(Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, kind):
        number = manager.lookup(kind.dtype).get_value_type()
        super().__init__(manager, kind, ir.VectorType(number, kind.count))


def _address(context, builder, array_type, array, offset, kind):
    data = context.make_array(array_type)(context, builder, array).data
    pointer = context.get_value_type(kind).as_pointer()
    return builder.bitcast(builder.gep(data, [offset]), pointer)


def _like_a_number(instruction, context, dtype):
    # rows of a table start anywhere; without this LLVM expects the alignment of a whole vector
    instruction.align = context.get_abi_alignment(context.get_value_type(dtype))
    return instruction


@intrinsic(prefer_literal=True)
def load(typing, array, offset, like):
    """Read from the flat index ``offset`` on; ``like`` is the number of lanes, or lanes."""
    count = like.count if isinstance(like, Lanes) else like.literal_value
    lanes = Lanes(array.dtype, count)

    def generate(context, builder, signature, arguments):
        address = _address(context, builder, array, arguments[0], arguments[1], lanes)
        return _like_a_number(builder.load(address), context, array.dtype)

    return lanes(array, types.intp, like), generate


@intrinsic(prefer_literal=True)
def zeros(typing, array, count):
    """Return lanes of zeros, of the array's type."""
    lanes = Lanes(array.dtype, count.literal_value)

    def generate(context, builder, signature, arguments):
        return _constant(context.get_value_type(lanes), 0.0)

    return lanes(array, count), generate


@intrinsic
def one(typing, array, offset):
    """Read the number at the flat index ``offset``."""

    def generate(context, builder, signature, arguments):
        return builder.load(
            _address(context, builder, array, arguments[0], arguments[1], array.dtype)
        )

    return array.dtype(array, types.intp), generate


@intrinsic
def store(typing, array, offset, value):
    """Write lanes to the flat index ``offset`` and behind."""

    def generate(context, builder, signature, arguments):
        address = _address(context, builder, array, arguments[0], arguments[1], value)
        _like_a_number(builder.store(arguments[2], address), context, array.dtype)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic(prefer_literal=True)
def roll(typing, value, steps):
    """Lane c takes the number of lane c + ``steps``, round the ring."""
    mask = [(c + steps.literal_value) % value.count for c in range(value.count)]

    def generate(context, builder, signature, arguments):
        order = ir.Constant(ir.VectorType(_I32, value.count), mask)
        return builder.shuffle_vector(arguments[0], arguments[0], order)

    return value(value, steps), generate


@intrinsic
def size(typing, value):
    """Return the number of lanes, a constant."""

    def generate(context, builder, signature, arguments):
        return context.get_constant(types.intp, value.count)

    return types.intp(value), generate


def _llvm(builder, name, lanes, result, arguments):
    """Call one of LLVM's own functions for vectors."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    name = f"llvm.{name}.v{lanes.count}f{lanes.dtype.bitwidth}"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, arguments, fastmath=_FAST)


@intrinsic
def total(typing, value):
    """Sum over all lanes."""

    def generate(context, builder, signature, arguments):
        number = context.get_value_type(value.dtype)
        start = ir.Constant(number, -0.0)
        return _llvm(builder, "vector.reduce.fadd", value, number, [start, arguments[0]])

    return value.dtype(value), generate


def _constant(vector, value):
    return ir.Constant(vector, [value] * vector.count)


@intrinsic
def inverse(typing, value):
    """1/v of every lane."""

    def generate(context, builder, signature, arguments):
        return builder.fdiv(_constant(arguments[0].type, 1.0), arguments[0], flags=_FAST)

    return value(value), generate


@intrinsic
def root(typing, value):
    """√v of every lane."""

    def generate(context, builder, signature, arguments):
        return _llvm(builder, "sqrt", value, arguments[0].type, arguments)

    return value(value), generate


@intrinsic
def largest(typing, value, other):
    """Return the larger number, lane by lane."""

    def generate(context, builder, signature, arguments):
        return _llvm(builder, "maxnum", value, arguments[0].type, arguments)

    return value(value, other), generate


@intrinsic
def exponential(typing, value):
    """eᵛ of every lane: 2ⁿ times the Taylor series of the rest, which is at most ln(2)/2.

    Lanes beyond ±87 (float32) or ±708 (float64) count as these.
    """
    single = value.dtype.bitwidth == 32
    order, largest, mantissa, bias = (7, 87.0, 23, 127) if single else (13, 708.0, 52, 1023)
    # ln(2) in two parts, the first with few digits, so that n·ln(2) loses none
    high = 0.693359375 if single else 0.693147180369123816490
    low = math.log(2.0) - high if single else 1.90821492927058770002e-10

    def generate(context, builder, signature, arguments):
        vector = arguments[0].type
        integers = ir.VectorType(ir.IntType(value.dtype.bitwidth), value.count)

        def number(x):
            return _constant(vector, x)

        x = arguments[0]
        for name, bound in (("maxnum", -largest), ("minnum", largest)):
            x = _llvm(builder, name, value, vector, [x, number(bound)])
        n = _llvm(builder, "rint", value, vector, [builder.fmul(x, number(1.0 / math.log(2.0)))])
        # numba makes operations without flags fast, which would join the two parts again
        rest = x
        for part in (high, low):
            product = builder.fmul(n, number(part), flags=("contract",))
            rest = builder.fsub(rest, product, flags=("contract",))
        series = number(1.0 / math.factorial(order))
        for k in reversed(range(order)):
            series = builder.fmul(series, rest, flags=_FAST)
            series = builder.fadd(series, number(1.0 / math.factorial(k)), flags=_FAST)
        exponent = builder.add(builder.fptosi(n, integers), _constant(integers, bias))
        power = builder.shl(exponent, _constant(integers, mantissa))
        return builder.fmul(series, builder.bitcast(power, vector), flags=_FAST)

    return value(value), generate


def _spread(builder, number, count):
    """Return a vector of equal numbers."""
    vector = ir.VectorType(number.type, count)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, one, _constant(ir.VectorType(_I32, count), 0))


def _define(operation, name):
    """Define an operator of two vectors, or of a vector and a number."""

    @intrinsic
    def compute(typing, a, b):
        lanes = a if isinstance(a, Lanes) else b
        kinds = [kind if isinstance(kind, Lanes) else lanes.dtype for kind in (a, b)]

        def generate(context, builder, signature, arguments):
            both = [
                x if isinstance(kind, Lanes) else _spread(builder, x, lanes.count)
                for x, kind in zip(arguments, kinds, strict=True)
            ]
            return getattr(builder, name)(*both, flags=_FAST)

        return lanes(*kinds), generate

    @overload(operation)
    def choose(a, b):
        lanes = any(isinstance(x, Lanes) for x in (a, b))
        if lanes and all(isinstance(x, Lanes | types.Number) for x in (a, b)):
            return lambda a, b: compute(a, b)
        return None


for _operations, _name in (
    ((operator.add, operator.iadd), "fadd"),
    ((operator.sub, operator.isub), "fsub"),
    ((operator.mul, operator.imul), "fmul"),
):
    for _operation in _operations:
        _define(_operation, _name)
