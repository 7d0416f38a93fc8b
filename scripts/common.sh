# Shared by the scripts beside it; sourced, never run.
# shellcheck shell=bash

set -euo pipefail

STPM_ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

die() {
  echo "error: $*" >&2
  exit 1
}

# The project's own environment where run_demo.sh or run_tests.sh made one, else the caller's python3.
if [[ -z ${STPM_PYTHON:-} ]]; then
  STPM_PYTHON=python3
  [[ -x $STPM_ROOT/.venv/bin/python ]] && STPM_PYTHON=$STPM_ROOT/.venv/bin/python
elif ! command -v -- "$STPM_PYTHON" >/dev/null; then
  die "STPM_PYTHON $STPM_PYTHON: no such program"
elif [[ $STPM_PYTHON == */* ]]; then
  STPM_PYTHON=$(realpath -s -- "$STPM_PYTHON") # the scripts change their folder; -s: a link says which environment
fi
[[ ${STPM_FOREGROUND:-0} == [01] ]] || die "STPM_FOREGROUND: expected 1, or 0 for the background, got '$STPM_FOREGROUND'"

# usage_unless COUNT TEXT ARGS...: exit with the usage unless at least COUNT positional arguments stand before the flags.
usage_unless() {
  local needed=$1 text=$2 given=0
  shift 2
  for argument in "$@"; do
    [[ $argument == --* ]] && break
    given=$((given + 1))
  done
  if ((given < needed)); then
    echo "usage: $text" >&2
    exit 2
  fi
}

# device_id ARG: print ARG if it is a card's number, nothing if it is absent or a flag; anything else is an error.
device_id() {
  local argument=${1:---}
  [[ $argument == --* ]] && return
  [[ $argument =~ ^[0-9]+$ ]] || die "DEVICE_ID: expected a whole number, got '$argument'"
  echo "$argument"
}

# check_category CATEGORY: output goes to a folder of this name below the caller's, never beside or above it.
check_category() {
  case $1 in
    "" | . | .. | */*) die "CATEGORY: expected the name of a folder, got '$1'" ;;
  esac
}

# lock FILE NAME: keep others from the same work, until this script and what it started have ended; or die. One that is
# being stopped gets five seconds.
lock() {
  local status=0
  exec 9>>"$1"
  flock --timeout 5 --conflict-exit-code 75 9 2>/dev/null || status=$?
  ((status != 75)) || die "$2: is in use by another call; wait for it, or stop it"
}

# run_logged LOG COMMAND...: run in the background with all output in LOG; with STPM_FOREGROUND=1 stay, show the
# output too and return the exit status.
run_logged() {
  local log=$1
  shift
  mkdir -p -- "$(dirname -- "$log")"
  lock "$log" "$log" # before it is emptied
  : >"$log"
  # tee -i: an interruption is for the command, which has something to say about it
  if [[ ${STPM_FOREGROUND:-0} == 1 ]]; then
    if [[ -t 2 ]]; then
      "$@" | tee -i -- "$log" # the progress bar, on stderr, keeps its terminal
    else
      "$@" 2>&1 | tee -i -- "$log"
    fi
  else
    nohup "$@" >"$log" 2>&1 </dev/null &
    echo "started in the background: pid $!, log $log"
  fi
}

# set_up_environment REQUIREMENTS: make the project's .venv and install a requirements file into it, unless that was
# done before with the same file.
set_up_environment() {
  local requirements=$STPM_ROOT/$1 venv=$STPM_ROOT/.venv stamp
  stamp=$venv/.installed-$1
  if [[ ! -f $stamp ]] || ! cat -- "$STPM_ROOT"/requirements*.txt | cmp -s - "$stamp"; then
    local python=${STPM_BASE_PYTHON:-python3}
    "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
      die "$python is $("$python" -V 2>&1), expected Python 3.11; name another one in STPM_BASE_PYTHON"
    [[ -x $venv/bin/python ]] || "$python" -m venv "$venv" ||
      die "$venv: cannot be made; Debian and Ubuntu need the package python3-venv"
    echo "installing $1 into $venv ..."
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    cat -- "$STPM_ROOT"/requirements*.txt >"$stamp"
  fi
  STPM_PYTHON=$venv/bin/python
}
