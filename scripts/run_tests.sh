#!/usr/bin/env bash
# Set up the project's environment with what the tests need and run the whole suite; arguments go to pytest.
#   bash scripts/run_tests.sh [-k EXPRESSION ...]

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

main() {
  set_up_environment requirements-dev.txt
  cd -- "$STPM_ROOT"
  "$STPM_PYTHON" -m pytest "$@"
}

main "$@"
