# Makes the environment that the scripts use; sourced after common.sh, never run.
# shellcheck shell=bash

# why_unfit PYTHON: print why the packages of requirements.txt cannot be installed for a Python, if they cannot.
why_unfit() {
  if ! command -v -- "$1" >/dev/null; then
    echo "no such program"
    return
  fi
  # MindSpore has packages for 3.10, 3.11 and 3.12, and the pinned scipy, scikit-learn and matplotlib none for 3.10
  "$1" -c 'import platform, sys
fit = sys.implementation.name == "cpython" and (3, 11) <= sys.version_info[:2] <= (3, 12)
if not fit:
    print("is", platform.python_implementation().replace("CPython", "Python"), platform.python_version())
elif not platform.libc_ver()[0]:
    print("is built for another C library than glibc")' 2>/dev/null || echo "does not run"
}

# suitable_pythons: print the programs that an environment can be made from, the one to take first; on stderr, what
# becomes of a STPM_BASE_PYTHON that is none of them.
suitable_pythons() {
  local python why base=${STPM_BASE_PYTHON:-}
  # pyenv keeps those that are not in use out of PATH
  for python in ${base:+"$base"} python3 python3.12 python3.11 \
    "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.1[12].*/bin/python3; do
    why=$(why_unfit "$python")
    if [[ -z $why ]] && ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
      why="cannot make environments (Debian and Ubuntu: apt install python3-venv)"
    fi
    if [[ -z $why ]]; then
      echo "$python"
    elif [[ $python == "$base" ]]; then
      echo "warning: STPM_BASE_PYTHON $base: $why; expected Python 3.11 or 3.12, looking for another one" >&2
    elif [[ $python == python3 ]]; then
      echo "python3: $why" >&2
    fi
  done
}

# minor_version PYTHON: print 3.11 or 3.12.
minor_version() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'
}

# other_pythons: print version and program of a suitable Python of each version but the environment's.
other_pythons() {
  local version python seen
  seen=$(minor_version "$STPM_VENV/bin/python")
  while read -r python; do
    version=$(minor_version "$python")
    [[ " $seen " != *" $version "* ]] || continue
    seen+=" $version"
    echo "$version $python"
  done < <(suitable_pythons 2>/dev/null)
}

# make_venv: make the environment, from the first suitable Python, else by uv, which can bring one.
make_venv() {
  local found
  mapfile -t found < <(suitable_pythons)
  if ((${#found[@]} > 0)); then
    echo "making $STPM_VENV with ${found[0]} ($("${found[0]}" -V)) ..."
    "${found[0]}" -m venv "$STPM_VENV" || die "$STPM_VENV: cannot be made; STPM_VENV names another folder"
  elif command -v uv >/dev/null; then
    echo "making $STPM_VENV with a Python of uv's ..."
    uv venv --quiet --seed --python ">=3.11,<3.13" "$STPM_VENV" || die "$STPM_VENV: uv cannot make it"
  else
    die "no Python 3.11 or 3.12 that can make environments was found. Debian 12, Ubuntu 24.04: apt install python3-venv;" \
      "elsewhere: pip install uv, which brings a Python; or name one in STPM_BASE_PYTHON"
  fi
}

# set_up_environment REQUIREMENTS: make the environment and install a requirements file into it, unless that was done
# before with the same file. One that was moved, or whose Python is none of today's, is made again.
set_up_environment() {
  local requirements=$STPM_ROOT/$1 stamp=$STPM_VENV/.installed-$1 fault=""
  if [[ -x $STPM_VENV/bin/python ]]; then
    fault=$(moved_from)
    fault=${fault:+was made as $fault}
    [[ -n $fault ]] || fault=$(why_unfit "$STPM_VENV/bin/python")
  elif [[ -e $STPM_VENV || -L $STPM_VENV ]]; then
    fault="has no bin/python that runs"
  fi
  if [[ -n $fault ]]; then
    compgen -G "$STPM_VENV/.installed-*" >/dev/null ||
      die "$STPM_VENV: $fault, and it was not made by this script; remove it, and this script makes another one"
    echo "$STPM_VENV: $fault; making it again"
    rm -rf -- "$STPM_VENV"
  fi
  if [[ ! -f $stamp ]] || ! cat -- "$STPM_ROOT"/requirements*.txt | cmp -s - "$stamp"; then
    [[ -x $STPM_VENV/bin/python ]] || make_venv
    echo "installing $1 into $STPM_VENV ..."
    "$STPM_VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    cat -- "$STPM_ROOT"/requirements*.txt >"$stamp"
  fi
  # shellcheck disable=SC2034  # for the script that sources this
  STPM_PYTHON=$STPM_VENV/bin/python
}
