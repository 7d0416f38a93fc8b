#!/usr/bin/env bash
# Convert an exported model for Ascend, so that nothing is compiled when the program loads it, and the host of the line
# needs no Python. Needs CANN's toolkit and the vendor's MindSpore Lite package (docs/ascend.md).
#   bash scripts/convert_ascend.sh MINDIR_PATH [OUT [SOC_VERSION]]
# OUT: the converted model, ./NAME_ascend.mindir by default; its JSON and the converter's log come beside it.
# SOC_VERSION: the chip that it is for, such as Ascend310, where that is not this host's.

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source-path=SCRIPTDIR
source "$STPM_ROOT/scripts/mindspore_lite.sh"

# A converted model has its precision for good: what the program asks for as it loads it is ignored. These are the modes
# that it asks for by default.
readonly PRECISION=enforce_fp32
readonly CONFIGURATION="[ascend_context]
precision_mode=$PRECISION
op_select_impl_mode=high_precision"

# require_tools: die unless CANN and the converter are here.
require_tools() {
  local lite="the vendor's cloud-side package of MindSpore Lite, https://www.mindspore.cn/lite/docs/en/master/use/downloads.html"
  [[ -n ${MS_LITE_HOME:-} ]] ||
    die "MS_LITE_HOME is not set: unpack $lite, and export MS_LITE_HOME=/path/to/mindspore-lite-VERSION-linux-ARCH"
  require_package Ascend
  CONVERTER=$MS_LITE_HOME/tools/converter/converter/converter_lite
  [[ -x $CONVERTER ]] || die "$CONVERTER: no such program; it is part of $lite"
  [[ -d ${ASCEND_OPP_PATH:-} ]] ||
    die "ASCEND_OPP_PATH '${ASCEND_OPP_PATH:-}': no such folder, so CANN's environment is not set:" \
      "source /usr/local/Ascend/ascend-toolkit/set_env.sh (from CANN 8.5 on /usr/local/Ascend/cann/set_env.sh);" \
      "the toolkit comes from https://www.hiascend.com/software/cann/community-history"
}

main() {
  choose_python
  if (($# < 1 || $# > 3)); then
    echo "usage: convert_ascend.sh MINDIR_PATH [OUT [SOC_VERSION]]" >&2
    exit 2
  fi
  local mindir out log soc=${3:-} enter
  [[ -f $1 ]] || die "MINDIR_PATH $1: no such file"
  mindir=$(realpath -- "$1")
  out=$(realpath -ms -- "${2:-$(basename -- "${mindir%.mindir}")_ascend.mindir}")
  log=${out%.mindir}.log
  [[ $soc =~ ^(Ascend[0-9A-Za-z_]+)?$ ]] || die "SOC_VERSION: expected a chip such as Ascend310, got '$soc'"
  require_tools
  MS_LITE_HOME=$(realpath -- "$MS_LITE_HOME")

  cd -- "$STPM_ROOT"
  enter=("$STPM_PYTHON" -m src.model.conversion --mindir_path "$mindir" --out "$out" --precision "$PRECISION"
    --lite_version "$(package_version)" ${soc:+--soc_version "$soc"})
  "${enter[@]}" --check

  work=$(mktemp -d) # not local: the trap runs outside this function
  trap 'rm -rf -- "$work"' EXIT
  cp -- "$mindir" "$work/model.mindir" # a name that no tool trips over
  echo "$CONFIGURATION" >"$work/configuration"
  if [[ -n $soc ]]; then printf '[acl_init_options]\nge.socVersion=%s\n' "$soc" >>"$work/configuration"; fi
  echo "converting with MindSpore Lite $(package_version) ..."
  stage "$log" with_libraries "$CONVERTER" --fmk=MINDIR --saveType=MINDIR --optimize=ascend_oriented \
    --modelFile="$work/model.mindir" --outputFile="$work/converted" --configFile="$work/configuration"
  if [[ ! -s $work/converted.mindir ]]; then
    cat -- "$log" >&2
    die "converter_lite ended with status 0, but wrote no model; its log is $log"
  fi
  "${enter[@]}" --converted "$work/converted.mindir"
}

main "$@"
