#!/usr/bin/env bash
# Build the inference programs in ascend_310_infer/build: stpm_infer, and stpm_inspect with libstpm.so, which read pictures.
#   MS_LITE_HOME=/path/to/mindspore-lite-VERSION-linux-ARCH bash build.sh [Ascend|GPU|CPU]    with the vendor's package
#   bash build.sh [CPU]    fetches MindSpore Lite 2.0.0 from the package index (x86-64 only; 170 MB, kept in .cache)
#   bash build.sh install FOLDER    copies them, with all that they need but the C library, to a folder that can go to
#     another machine of the same distribution
# The programs are the same for all devices; the one that is named, else Ascend where there is one, is checked to be
# among those of the library.

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/../scripts/common.sh"
# shellcheck source-path=SCRIPTDIR
source "$STPM_ROOT/scripts/mindspore_lite.sh"

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

# ingredients LIBRARY: print what the programs are built with: this library, and those for pictures where they are.
ingredients() {
  echo "$1"
  if c++ -E -include cstdio -include png.h -include jpeglib.h -include tiffio.h -x c++ /dev/null >/dev/null 2>&1; then
    echo "libraries for pictures"
  fi
}

# tell_of_pictures: say what is left out, and how to have it.
tell_of_pictures() {
  [[ -x $BUILD/stpm_inspect ]] ||
    echo "left out: stpm_inspect and libstpm.so, which read pictures; apt install libpng-dev libjpeg-dev libtiff-dev," \
      "then run this again"
}

# is_built LIBRARY: was the program built with this library and the sources as they are?
is_built() {
  local program=$BUILD/stpm_infer
  [[ -x $program && -f $BUILD/library && $(<"$BUILD/library") == "$(ingredients "$1")" ]] || return 1
  [[ -z $(find "$SOURCE" -path "$BUILD" -prune -o -type f -newer "$program" -print -quit) ]]
}

# build [DEVICE]: have the programs built as the library and the sources are.
build() {
  local device=${1:-$(present_device)} include library tool
  (($# <= 1)) && [[ $device =~ ^(Ascend|GPU|CPU)$ ]] ||
    die "build.sh: expected Ascend, GPU, CPU, 'install FOLDER' or nothing, got '$*'; MS_LITE_HOME names the vendor's package"
  require_package "$device"
  if [[ -n ${MS_LITE_HOME:-} ]]; then
    MS_LITE_HOME=$(realpath -- "$MS_LITE_HOME")
    echo "MindSpore Lite $(package_version) in $MS_LITE_HOME"
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
  [[ -f $library ]] || die "$library: no such file; remove $SDK, and it is fetched again"
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
  with_libraries cmake --build "$BUILD" --parallel "$(nproc)"
  ingredients "$library" >"$BUILD/library"
}

# install FOLDER: copy what is built, for another machine.
install() {
  mkdir -p -- "$1"
  cmake --install "$BUILD" --prefix "$1" >/dev/null
  echo "installed: $1"
}

main() {
  choose_python bare # which fetches the library where MS_LITE_HOME is not set
  local folder=""
  if (($# == 2)) && [[ $1 == install && -n $2 ]]; then
    folder=$(realpath -m -- "$2")
    shift 2
  fi
  build "$@"
  tell_of_pictures
  [[ -z $folder ]] || install "$folder"
}

main "$@"
