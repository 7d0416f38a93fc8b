#!/usr/bin/env bash
# Set up the project's environment with what the tests need and run the whole suite, several files at a time; arguments
# go to pytest.
#   bash scripts/run_tests.sh [-k EXPRESSION ...]
#   bash scripts/run_tests.sh --all-pythons [-k EXPRESSION ...]: on every suitable Python of this machine, one after the
#     other, each of the others in an environment in .cache
#   bash scripts/run_tests.sh --mutants [--only TEXT] [--jobs N]: plant small defects, and tell which go unnoticed

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source-path=SCRIPTDIR
source "$STPM_ROOT/scripts/environment.sh"

# run_suite ARGS...: run pytest in one worker more than there are cores, since some tests wait; at most four, since each
# loads MindSpore. A file goes to one worker as a whole, which makes what its tests share once, and those that run long
# come first (tests/conftest.py).
run_suite() {
  local workers
  workers=$("$STPM_PYTHON" -c 'from src.utils import core_count; print(min(4, core_count() + 1))')
  # later flags win: -n 0 runs them in this process
  "$STPM_PYTHON" -m pytest --numprocesses="$workers" --no-loadscope-reorder --dist=loadfile "$@"
}

# run_on_others ARGS...: run the suite on the machine's other Pythons; the status is that of the last that failed.
run_on_others() {
  local found line version python status=0
  mapfile -t found < <(other_pythons)
  ((${#found[@]} > 0)) || echo "no other suitable Python on this machine"
  for line in ${found[@]+"${found[@]}"}; do
    read -r version python <<<"$line"
    echo "=== Python $version ($python)"
    STPM_VENV=$STPM_ROOT/.cache/python$version STPM_BASE_PYTHON=$python \
      bash "$STPM_ROOT/scripts/run_tests.sh" "$@" || status=$?
  done
  return "$status"
}

main() {
  set_up_environment requirements-dev.txt
  cd -- "$STPM_ROOT"
  if [[ ${1:-} == --mutants ]]; then
    shift
    "$STPM_PYTHON" -m tests.mutants "$@"
  elif [[ ${1:-} == --all-pythons ]]; then
    shift
    local status=0
    echo "=== Python $(minor_version "$STPM_PYTHON") ($STPM_PYTHON)"
    run_suite "$@" || status=$?
    run_on_others "$@" || status=$?
    return "$status"
  else
    run_suite "$@"
  fi
}

main "$@"
