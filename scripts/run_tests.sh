#!/usr/bin/env bash
# Set up the project's environment with what the tests need and run the whole suite, several tests at a time; arguments
# go to pytest.
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
  # at most four at a time, since each loads MindSpore; later flags win: -n 0 runs them in this process
  "$STPM_PYTHON" -m pytest --numprocesses=logical --maxprocesses=4 --dist=worksteal "$@"
}

main "$@"
