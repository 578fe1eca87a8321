# Set up an environment of this checkout and print the path of its Python; talk goes to stderr.
# Used as `python=$(sh ops/setup.sh)` by ops/test and ops/demo, and as `sh ops/setup.sh bench` by ops/bench.
# Here we only look for a Python; ops/setup.py does the work.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)

# Another project's Python must not leak into ours.
unset PYTHONHOME PYTHONPATH

# Any distribution's Python may come without venv or ensurepip: such a one is passed over, as an old one is.
fits() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if fits "$candidate"; then
        exec "$candidate" "$root/ops/setup.py" "$@"
    fi
done

echo "setup: no Python 3.11 or newer with venv and ensurepip found: install python3.11 and python3.11-venv," \
    "or name one: PYTHON=/path/to/python3.11 sh ops/test" >&2
exit 1
