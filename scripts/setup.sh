#!/usr/bin/env bash
# Makes .venv in the checkout and installs the project into it, CPU PyTorch first. `make setup` runs this.
#   PYTHON       the interpreter to build on (default: the first of python3, python3.14 ... 3.11 that will do)
#   TORCH_INDEX  package index to take PyTorch from, whichever build it has (see the README)
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv
stamp=$venv/.mixwright-installed  # holds the TORCH_INDEX it was installed with
torch=2.13.0

can_build() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if can_build "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    {
        echo "Mixwright needs Python 3.11 or newer with its venv module. Looked at:"
        for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
            echo "  $candidate: $("$candidate" --version 2>&1 | head -n 1 || true)"
        done
        echo "On Debian or Ubuntu: apt-get install python3 python3-venv. Or name one: make setup PYTHON=/path/to/python3.12"
    } >&2
    return 1
}

# A checkout that was moved has an environment whose programs point to the old place.
if ! [ -x $venv/bin/python ] || ! $venv/bin/python -m pip --version >/dev/null 2>&1 \
    || [ "$($venv/bin/python -c 'import sys; print(sys.prefix)')" != "$(pwd -P)/$venv" ]; then
    python=$(find_python)
    echo "Making $venv with $("$python" --version)"
    "$python" -m venv --clear $venv
fi

pip=("$venv/bin/python" -m pip --disable-pip-version-check --no-input)

has_torch() {
    "$venv/bin/python" - "$torch" <<'PYTHON' 2>/dev/null
import sys
from importlib.metadata import version
sys.exit(version("torch").split("+")[0] != sys.argv[1])
PYTHON
}

install_torch() {
    if [ -n "${TORCH_INDEX:-}" ] && [ "$(cat $stamp 2>/dev/null)" != "$TORCH_INDEX" ]; then
        echo "Installing PyTorch $torch from TORCH_INDEX"
        # From nowhere else, whatever pip is configured with; its dependencies come with the others' below.
        PIP_FIND_LINKS='' PIP_EXTRA_INDEX_URL='' \
            "${pip[@]}" install --quiet --no-deps --force-reinstall --index-url "$TORCH_INDEX" "torch==$torch"
    elif ! has_torch; then
        echo "Installing PyTorch $torch"
        "${pip[@]}" install --quiet --no-deps "torch==$torch+cpu" >/dev/null 2>&1 || install_default_torch
    fi
}

install_default_torch() {
    if [ "$(uname -s)" = Linux ]; then
        echo "No index pip knows has torch $torch+cpu: taking plain torch $torch, on Linux the CUDA build with its" >&2
        echo "large libraries. It runs on the CPU too; make setup TORCH_INDEX=<an index of CPU builds> avoids them." >&2
    fi
    "${pip[@]}" install --quiet --no-deps "torch==$torch"
}

install_torch
echo "Installing the project and its tools (some minutes the first time)"
"${pip[@]}" install --quiet -c constraints.txt -e '.[dev]'
echo "${TORCH_INDEX:-$(cat $stamp 2>/dev/null || true)}" >$stamp
