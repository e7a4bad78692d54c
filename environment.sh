# Sourced by train.sh, tests/run.sh and .ci/run: finds a Python that can run facelab, or makes one in .venv.
# Sets PYTHON, and exports PYTHONPATH where facelab is run from the checkout without being installed.
# FACELAB_VENV names another folder than .venv, and FACELAB_OWN_VENV=1 ignores the active Python.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
VENV=${FACELAB_VENV:-$ROOT/.venv}
NEEDED="torch torchvision numpy scipy yaml cv2 timm rich pydantic typer matplotlib jinja2 safetensors tensorboard"
NEEDED_BY_TESTS="pytest xdist hypothesis ruff mypy build sklearn onnx onnxruntime onnxscript thop peft"

say() { printf '%s\n' "$*" >&2; }

# new_enough PYTHON: whether it runs and is 3.11 or newer.
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# missing PYTHON MODULE...: prints those modules that this Python does not have, or has in too old a version.
missing() {
    (cd / && "$1" - "${@:2}") <<'PYTHON'
import importlib.metadata, importlib.util, sys

lacking = [name for name in sys.argv[1:] if importlib.util.find_spec(name) is None]
if "torch" not in lacking:
    version = importlib.metadata.version("torch")
    if tuple(int(word) for word in version.split(".")[:2]) < (2, 11):
        lacking.append(f"torch>=2.11 (it has {version})")
if "cv2" not in lacking:
    import cv2

    if not hasattr(cv2, "IMREAD_COLOR_RGB"):
        lacking.append(f"opencv>=4.11 (it has {cv2.__version__})")
print(", ".join(lacking))
PYTHON
}

# find_new_enough: prints the first Python of 3.11 or newer on PATH.
find_new_enough() {
    local name
    for name in python python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$name" >/dev/null && new_enough "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}

# with_clock TEXT LOG COMMAND...: runs the command quietly and shows how long it takes; on failure prints the end of its log.
with_clock() {
    local text=$1 log=$2 start=$SECONDS job
    shift 2
    "$@" >"$log" 2>&1 &
    job=$!
    [[ -t 2 ]] || say "$text ..."
    while kill -0 "$job" 2>/dev/null; do
        [[ ! -t 2 ]] || printf '\r%s ... %d s ' "$text" $((SECONDS - start)) >&2
        sleep 1
    done
    [[ ! -t 2 ]] || printf '\r' >&2
    if wait "$job"; then
        say "$text: done in $((SECONDS - start)) s"
    else
        say "$text: failed; the end of $log:"
        tail -n 20 "$log" >&2
        return 1
    fi
}

# make_environment EXTRAS: makes $VENV, or completes one that was left half installed, and installs facelab into it.
make_environment() {
    local base
    if [[ ! -x $VENV/bin/python ]]; then
        base=$(find_new_enough) || {
            say "facelab needs Python 3.11 or newer, but there is none on PATH ($(python3 --version 2>&1 || true))."
            return 1
        }
        "$base" -m venv "$VENV" || {
            say "'$base -m venv' failed; on Debian and Ubuntu it needs the package python3-venv."
            return 1
        }
    fi
    with_clock "installing facelab and what it needs into ${VENV#"$ROOT/"}" "$VENV/install.log" \
        "$VENV/bin/python" -m pip install --disable-pip-version-check --no-input -e "$ROOT$1" || {
        say "if ${VENV#"$ROOT/"} itself is broken, delete it and try again"
        return 1
    }
}

# use_environment [dev]: sets PYTHON to the active Python if it has all that is needed, else to that of $VENV.
use_environment() {
    local needed=$NEEDED extras="" active lacks
    if [[ ${1:-} == dev ]]; then
        needed="$NEEDED $NEEDED_BY_TESTS"
        extras="[dev]"
    fi
    PYTHON=""
    if [[ -z ${FACELAB_OWN_VENV:-} ]] && active=$(find_new_enough); then
        # shellcheck disable=SC2086  # a list of words
        lacks=$(missing "$active" $needed)
        if [[ -z $lacks ]]; then
            PYTHON=$active
        else
            say "using ${VENV#"$ROOT/"}, because $active lacks: $lacks"
        fi
    fi
    if [[ -z $PYTHON ]]; then
        PYTHON=$VENV/bin/python
        # shellcheck disable=SC2086
        if [[ ! -x $PYTHON ]] || [[ -n $(missing "$PYTHON" $needed) ]]; then
            make_environment "$extras" || return 1
        fi
    fi
    run_from_checkout
}

# run_from_checkout: makes sure that PYTHON imports the facelab of this checkout, and no other that may be installed.
run_from_checkout() {
    local found
    found=$(cd / && "$PYTHON" -c 'import facelab; print(facelab.__file__)' 2>/dev/null) || found=""
    if [[ $found != "$ROOT/facelab/__init__.py" ]]; then
        export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
    fi
}

# processors: prints the number of processors that this process may use.
processors() { nproc 2>/dev/null || getconf _NPROCESSORS_ONLN; }
