#!/usr/bin/env bash
# Sets up what the tests need and runs them; arguments go to pytest:
#   bash tests/run.sh                      all but the slow, the packaging and the browser tests
#   bash tests/run.sh -m golden            those against the outputs of the original programs
#   bash tests/run.sh tests/head -x        one folder, up to the first failure
set -euo pipefail
# shellcheck source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh"

use_environment dev
cd "$ROOT"
exec "$PYTHON" -m pytest -m "not slow and not packaging and not browser" "$@"
