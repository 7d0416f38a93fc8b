#!/usr/bin/env bash
# Set up the project's environment with what the tests need and run the whole suite; arguments go to pytest.
#   bash scripts/run_tests.sh [-k EXPRESSION ...]
#   bash scripts/run_tests.sh --mutants [--only TEXT] [--jobs N]: plant small defects, and tell which go unnoticed

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

main() {
  set_up_environment requirements-dev.txt
  cd -- "$STPM_ROOT"
  if [[ ${1:-} == --mutants ]]; then
    shift
    "$STPM_PYTHON" -m tests.mutants "$@"
    return
  fi
  "$STPM_PYTHON" -m pytest "$@"
}

main "$@"
