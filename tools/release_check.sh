#!/usr/bin/env bash
# Builds the wheel, or the sdist, installs it in an empty environment, and trains the quickstart for an epoch with it:
#
#   tools/release_check.sh wheel python3.11
#   tools/release_check.sh sdist python3.13
#
# Everything is made in a temporary folder, which is removed afterwards.
set -euo pipefail
case ${1:-} in
  wheel) pattern='*.whl' ;;
  sdist) pattern='*.tar.gz' ;;
  *) echo "usage: $0 wheel|sdist [PYTHON]" >&2; exit 2 ;;
esac
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/source" "$folder/elsewhere"
git -C "$root" archive HEAD | tar -x -C "$folder/source"  # what is committed, and nothing else
python=${2:-python3}
"$python" -m venv "$folder/build"
"$folder/build/bin/pip" install --quiet --disable-pip-version-check build
"$folder/build/bin/python" -m build "--$1" --outdir "$folder/dist" "$folder/source" > "$folder/build.log" || {
  cat "$folder/build.log"; exit 1; }
file=$(echo "$folder"/dist/$pattern)
echo "built $(basename "$file") with $("$python" --version)"
"$python" -m venv "$folder/empty"
"$folder/empty/bin/pip" install --quiet --disable-pip-version-check "$file"
cd "$folder/elsewhere"
export PYTHONPATH='' XDG_CACHE_HOME=$folder/cache
"$folder/empty/bin/ncl-jax" --version
"$folder/empty/bin/ncl-jax" train --config=quickstart:epochs=1 --workdir=run
test -s run/results.json && test -s run/report.html
"$folder/empty/bin/ncl-jax" export --run=run --out=model.stablehlo
echo "$(basename "$file") installs, trains and exports on $("$python" --version)"
