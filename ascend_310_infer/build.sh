#!/usr/bin/env bash
# Build the inference program, ascend_310_infer/build/stpm_infer.
#   MS_LITE_HOME=/path/to/mindspore-lite-VERSION-linux-ARCH bash build.sh    with the vendor's package (Ascend, GPU, CPU)
#   bash build.sh    fetches MindSpore Lite 2.0.0 from the package index (CPU, x86-64 only; 170 MB, kept in .cache)

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/../scripts/common.sh"

# The last release whose wheel, for CPython 3.7, carries the C++ library; no Python 3.7 is needed to use that.
readonly SDK=$STPM_ROOT/.cache/mindspore-lite-2.0.0
readonly SOURCE=$STPM_ROOT/ascend_310_infer
readonly BUILD=$SOURCE/build

fetch_sdk() {
  [[ $(uname -sm) == "Linux x86_64" ]] ||
    die "$(uname -sm): set MS_LITE_HOME to the vendor's MindSpore Lite package; the one fetched is for Linux x86_64"
  partial=$SDK.$$.part # not local: the trap runs outside this function
  trap 'rm -rf -- "$partial"' EXIT
  mkdir -p -- "$partial"
  echo "fetching MindSpore Lite 2.0.0 into $SDK ..."
  "$STPM_PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --python-version 3.7 --require-hashes -r "$SOURCE/sdk.txt" -d "$partial"
  "$STPM_PYTHON" -m zipfile -e "$partial"/*.whl "$partial"
  rm -f -- "$partial"/*.whl
  mv -T -- "$partial" "$SDK"
  trap - EXIT
}

# check_writable FOLDER: what is missing is made below it.
check_writable() {
  [[ -w $1 ]] || die "$1: cannot be written to, and the program has yet to be built: run $SOURCE/build.sh as a user who can"
}

# was_moved: was the folder built in another place? CMake, which notes that place, would refuse to go on.
was_moved() {
  local cache=$BUILD/CMakeCache.txt built
  [[ -f $cache ]] || return 1
  built=$(sed -n 's/^CMAKE_CACHEFILE_DIR:INTERNAL=//p' -- "$cache")
  [[ ! $built -ef $BUILD ]]
}

# is_built LIBRARY: was the program built with this library and the sources as they are?
is_built() {
  local program=$BUILD/stpm_infer
  [[ -x $program && -f $BUILD/library && $(<"$BUILD/library") == "$1" ]] || return 1
  [[ -z $(find "$SOURCE" -path "$BUILD" -prune -o -type f -newer "$program" -print -quit) ]]
}

main() {
  choose_python
  (($# == 0)) || die "build.sh takes no arguments; MS_LITE_HOME names the vendor's package"
  local include library tool
  if [[ -n ${MS_LITE_HOME:-} ]]; then
    include=$MS_LITE_HOME/runtime
    library=$MS_LITE_HOME/runtime/lib/libmindspore-lite.so
  else
    if [[ ! -d $SDK ]]; then
      check_writable "$STPM_ROOT"
      fetch_sdk
    fi
    include=$SDK/mindspore_lite
    library=$SDK/mindspore_lite/lib/libmindspore-extendrt_python.so
  fi
  [[ -f $library ]] || die "$library: no such file; MS_LITE_HOME must be an unpacked MindSpore Lite package"
  echo "MindSpore Lite: $library"
  if ! was_moved && is_built "$library"; then
    echo "up to date: $BUILD/stpm_infer"
    return
  fi
  check_writable "$SOURCE"
  for tool in cmake make c++; do
    command -v "$tool" >/dev/null || die "$tool is not installed; Debian and Ubuntu: apt install cmake make g++"
  done
  if was_moved; then rm -rf -- "$BUILD"; fi
  cmake -S "$SOURCE" -B "$BUILD" -DMS_LITE_INCLUDE="$include" -DMS_LITE_LIBRARY="$library" >/dev/null
  cmake --build "$BUILD" --parallel "$(nproc)"
  echo "$library" >"$BUILD/library"
}

main "$@"
