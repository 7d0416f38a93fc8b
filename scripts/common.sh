# Shared by the scripts beside it; sourced, never run.
# shellcheck shell=bash

set -euo pipefail

STPM_ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

die() {
  echo "error: $*" >&2
  exit 1
}

# Before anything else: pip installs one of MindSpore's packages on any machine, where nothing of it works.
case $(uname -sm) in
  "Linux x86_64" | "Linux aarch64") ;;
  *)
    die "this is $(uname -sm): STPM needs Linux on x86_64 or aarch64, for which MindSpore is made;" \
      "elsewhere use a Linux container or virtual machine (on Windows: WSL 2)"
    ;;
esac
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
  ((status == 0)) || echo "warning: $1: cannot be locked: nothing else may write there" >&2
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

# stage LOG COMMAND...: run with all output in LOG; if it fails, show that log and end with its status.
stage() {
  local log=$1 status=0
  shift
  "$@" >"$log" 2>&1 || status=$?
  if ((status != 0)); then
    cat -- "$log" >&2
    echo "error: stage $(basename -- "$log" .log) failed with status $status; its log is $log" >&2
    exit "$status"
  fi
}

# The environment that run_demo.sh and run_tests.sh make, and the other scripts use.
STPM_VENV=$(realpath -sm -- "${STPM_VENV:-$STPM_ROOT/.venv}")

# moved_from: if the environment was moved or copied, print where it was made, which is where its activate leads.
moved_from() {
  local made
  # shellcheck source=/dev/null
  made=$(set +eu && source "$STPM_VENV/bin/activate" 2>/dev/null && echo "$VIRTUAL_ENV") || return 0
  [[ $made -ef $STPM_VENV ]] || echo "$made"
}

# choose_python [bare]: set STPM_PYTHON, unless the user has, to the environment's Python where there is one, else to
# python3, which must have the packages unless it is for work that needs none (bare).
choose_python() {
  local made
  if [[ -n ${STPM_PYTHON:-} ]]; then
    command -v -- "$STPM_PYTHON" >/dev/null || die "STPM_PYTHON $STPM_PYTHON: no such program"
    # the scripts change their folder; -s: a link says which environment
    [[ $STPM_PYTHON != */* ]] || STPM_PYTHON=$(realpath -s -- "$STPM_PYTHON")
  elif [[ ! -e $STPM_VENV && ! -L $STPM_VENV ]]; then
    STPM_PYTHON=python3
    [[ ${1:-} == bare ]] || python3 -c 'import importlib.util, sys
sys.exit(sys.version_info < (3, 11) or None in map(importlib.util.find_spec, ("numpy", "PIL")))' 2>/dev/null ||
      die "there is no $STPM_VENV, and python3 is no Python 3.11 or 3.12 with the packages of requirements.txt;" \
        "run_demo.sh makes the one, STPM_PYTHON names another Python"
  else
    STPM_PYTHON=$STPM_VENV/bin/python
    [[ -x $STPM_PYTHON ]] || die "$STPM_PYTHON: is missing or leads nowhere; was $STPM_VENV made on another machine?" \
      "run_demo.sh and run_tests.sh make it again; STPM_PYTHON names another Python"
    made=$(moved_from)
    [[ -z $made ]] || echo "warning: $STPM_VENV was made as $made, where its bin/activate leads;" \
      "run_demo.sh and run_tests.sh make it again" >&2
  fi
}
