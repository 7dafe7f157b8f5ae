#!/usr/bin/env bash
# Collect what a GPU machine without package registries lacks, in pieces below 60 MB.
# Usage: tests/gpu/wheels.sh FOLDER [PYTHON_VERSION]   (3.12 by default; see README.md beside this)
set -euo pipefail
folder=${1:?give a folder for the wheels}
python=${2:-3.12}
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$folder"
# torch and CUDA are there already: all others of the default run and of tests/gpu
pip download --quiet --dest "$folder" --only-binary=:all: --no-deps --python-version "$python" \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 --platform any --implementation cp \
    -c "$root/constraints.txt" \
    ipi numpy ase numba llvmlite scipy vesin safetensors typer rich click shellingham pygments \
    markdown-it-py mdurl matplotlib contourpy cycler fonttools kiwisolver pillow pyparsing \
    python-dateutil six packaging pyzmq msgpack psutil nvalchemi-toolkit-ops warp-lang \
    so3krates-torch torch-geometric aiohttp aiosignal attrs frozenlist multidict propcache yarl \
    idna aiohappyeyeballs jinja2 markupsafe tqdm requests urllib3 certifi charset-normalizer \
    pydantic pydantic-core annotated-types typing-inspection annotated-doc matscipy h5py cffi pycparser colorama pyyaml sympy mpmath typing-extensions \
    setuptools wheel xxhash fsspec pytest pluggy iniconfig pytest-xdist execnet hypothesis sortedcontainers
# files above the limit are cut; README.md says how they are joined
find "$folder" -name '*.whl' -size +55M | while read -r wheel; do
    split --bytes=50M --numeric-suffixes "$wheel" "$wheel.part"
    rm "$wheel"
done
du -sh "$folder"
