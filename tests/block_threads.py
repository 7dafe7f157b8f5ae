"""Kernels in C++ with the blocks of threads that a GPU has, on threads of the CPU.

Warp runs such a kernel on the CPU with one thread a block. Here the same source is compiled for
CUDA's way: all threads of a block at once, with real barriers, memory that they share, and
exchanges between the 32 of a warp. It needs a C++ compiler.
"""

import ctypes
import inspect
import itertools
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import torch
import warp as wp

from integrators.device.launches import Launches

SHIM = """
#include <algorithm>
#include <barrier>
#include <cmath>
#include <thread>
#include <vector>
#define __CUDA_ARCH__ 900
#define __shared__ static
#define CUDA_CALLABLE
static thread_local int the_thread;
static std::barrier<>* the_block;
static std::vector<std::barrier<>*> the_warps;
static double exchanged[1024];
#define __syncthreads() the_block->arrive_and_wait()
template <class X> X __shfl_xor_sync(unsigned, X value, int distance) {
    exchanged[the_thread] = value;
    the_warps[the_thread / 32]->arrive_and_wait();
    const X found = X(exchanged[the_thread ^ distance]);
    the_warps[the_thread / 32]->arrive_and_wait();
    return found;
}
namespace wp {
template <class X> X min(X a, X b) { return std::min(a, b); }
template <class X> X max(X a, X b) { return std::max(a, b); }
template <class X> X sqrt(X a) { return std::sqrt(a); }
template <class X> X exp(X a) { return std::exp(a); }
template <class X> X abs(X a) { return std::abs(a); }
}
template <class X> struct array { X* data; int shape[4]; };
"""
RUN = """
extern "C" void run(int blocks, int threads, int* places, void** p, int* s, double* v) {
    std::barrier<> all(threads);
    the_block = &all;
    for (int first = 0; first < threads; first += 32)
        the_warps.push_back(new std::barrier<>(std::min(32, threads - first)));
    std::vector<std::thread> running;
    for (int t = 0; t < threads; ++t)
        running.emplace_back([=] {
            the_thread = t;
            for (int n = 0; n < blocks; ++n) {
                BODY;
                the_block->arrive_and_wait();
            }
        });
    for (auto& thread : running) thread.join();
    for (auto* warp : the_warps) delete warp;
    the_warps.clear();
}
"""
NUMBERS = {"float32": "float", "float64": "double", "int32": "int", "int64": "long", "int": "int"}


def compiler():
    """Whether there is a C++ compiler whose library has barriers."""
    if shutil.which("g++") is None or sys.platform != "linux":
        return False
    command = ["g++", "-std=c++20", "-fsyntax-only", "-x", "c++", "-"]
    source = "#include <barrier>\nstd::barrier<> all(2);"
    return subprocess.run(command, input=source, text=True, capture_output=True).returncode == 0


def native(kernel):
    """The function in C++ that a kernel calls, if any."""
    functions = inspect.getclosurevars(kernel.func).nonlocals.values()
    return next((f for f in functions if getattr(f, "native_snippet", None)), None)


def launch(kernel, dim, *arguments, block=None):
    """Do what `integrators.device.launches.launch` does."""
    given = [
        wp.from_torch(a, requires_grad=False) if isinstance(a, torch.Tensor) else a
        for a in arguments
    ]
    if native(kernel) is None or len(dim) == 1:
        wp.launch(kernel, dim, given, device="cpu")
        return
    run = _compiled(kernel)
    parts = list(itertools.chain.from_iterable(map(_parts, given)))
    pointers, sizes = (ctypes.c_void_p * len(parts))(), (ctypes.c_int * (4 * len(parts)))()
    numbers = (ctypes.c_double * len(parts))()
    for k, part in enumerate(parts):
        if isinstance(part, wp.array):
            pointers[k] = part.ptr
            sizes[4 * k : 4 * k + part.ndim] = part.shape
        else:
            numbers[k] = float(part)
    *blocks, threads = dim
    places = list(itertools.product(*map(range, blocks)))
    flat = (ctypes.c_int * (len(places) * len(blocks)))(*itertools.chain(*places))
    run(len(places), threads, flat, pointers, sizes, numbers)


def emulated(monkeypatch, *modules):
    """Have all launches of these modules, and those put together, run so."""
    for module in modules:
        monkeypatch.setattr(module, "launch", launch)

    def add(self, kernel, dim, *arguments, block=256):
        self._all.append([kernel, dim, list(arguments)])

    def replace(self, place, arrays):
        self._all[place][2][: len(arrays)] = arrays

    def run(self):
        for kernel, dim, arguments in self._all:
            launch(kernel, dim, *arguments)

    for name, function in (("add", add), ("replace", replace), ("run", run)):
        monkeypatch.setattr(Launches, name, function)


def _parts(value):
    if not isinstance(value, wp._src.codegen.StructInstance):
        return [value]
    return [_field(value, name) for name in value._cls.vars]


def _field(structure, name):
    value = getattr(structure, name)
    return 0.0 if value is None else value


def _type(kind):
    if not isinstance(kind, wp.array):
        return NUMBERS[kind.__name__]
    number = getattr(kind.dtype, "_wp_scalar_type_", kind.dtype)
    return f"array<{NUMBERS[number.__name__]}>"


def _value(kind, k):
    if not isinstance(kind, wp.array):
        return f"({_type(kind)})v[{k}]"
    shape = ", ".join(f"s[{4 * k + n}]" for n in range(4))
    return f"{_type(kind)}{{({_type(kind)[6:-1]}*)p[{k}], {{{shape}}}}}"


@cache
def _compiled(kernel):
    function = native(kernel)
    declared, values, structures, k = [], [], [], 0
    inputs = list(function.input_types.items())
    places = len(inputs) - len(kernel.adj.args)
    for n, (name, kind) in enumerate(inputs):
        if n < places:
            values.append("t" if n == places - 1 else f"places[{places - 1} * n + {n}]")
            declared.append(f"int {name}")
        elif isinstance(kind, wp._src.codegen.Struct):
            fields = [(field, var.type) for field, var in kind.vars.items()]
            body = " ".join(f"{_type(of)} {field};" for field, of in fields)
            structures.append(f"struct Of_{name} {{ {body} }};")
            inside = ", ".join(_value(of, k + m) for m, (_, of) in enumerate(fields))
            values.append(f"Of_{name}{{{inside}}}")
            declared.append(f"Of_{name} {name}")
            k += len(fields)
        else:
            values.append(_value(kind, k))
            declared.append(f"{_type(kind)} {name}")
            k += 1
    text = SHIM + "\n".join(structures)
    text += f"\nstatic void body({', '.join(declared)}) {{\n{function.native_snippet}\n}}\n"
    text += RUN.replace("BODY", f"body({', '.join(values)})")
    source = Path(_folder()) / f"{kernel.key}_{len(list(Path(_folder()).iterdir()))}.cpp"
    source.write_text(text, encoding="utf-8")
    library = source.with_suffix(".so")
    command = ["g++", "-std=c++20", "-O1", "-w", "-shared", "-fPIC", "-pthread"]
    done = subprocess.run(
        [*command, str(source), "-o", str(library)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[:3000]
    return ctypes.CDLL(str(library)).run


@cache
def _folder():
    import tempfile

    return tempfile.mkdtemp(prefix="mts-blocks-")
