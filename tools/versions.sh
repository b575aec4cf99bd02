#!/usr/bin/env bash
# Runs the fast tests with the lowest, or the newest, versions that pyproject.toml allows:
#
#   tools/versions.sh lowest python3.11
#   tools/versions.sh newest python3.13
#
# In a virtual environment of its own, made by uv (pip install uv), which is removed afterwards.
set -euo pipefail
case ${1:-} in
  lowest) resolution=lowest-direct ;;
  newest) resolution=highest ;;
  *) echo "usage: $0 lowest|newest [PYTHON]" >&2; exit 2 ;;
esac
root=$(cd "$(dirname "$0")/.." && pwd)
environment=$(mktemp -d)
copy=$(mktemp -d)
trap 'rm -rf "$environment" "$copy"' EXIT
git -C "$root" archive HEAD | tar -x -C "$copy"
uv venv --quiet --python "${2:-python3}" "$environment"
export VIRTUAL_ENV=$environment
uv pip install --quiet --resolution "$resolution" "$copy[jpeg,onnx]" \
  "pytest>=8" "pytest-xdist>=3.8" "nbclient>=0.10" "ipykernel>=6"
"$environment/bin/python" -c "
from importlib.metadata import version
names = 'jax jaxlib flax optax orbax-checkpoint grain numpy scipy pillow matplotlib ml-collections'.split()
print(*(f'{name} {version(name)}' for name in names), sep=', ')"
cd "$root"
PYTHONPATH=$root "$environment/bin/python" -m pytest -m "not slow"
