#!/usr/bin/env bash
# Preprocess, infer with the C++ program, score. Output: ./acc.log and ./CATEGORY/310_infer/
# A DATASET_PATH without CATEGORY/test is a folder of unlabelled images: the output is then scores.csv, no acc.log.
#   bash scripts/run_310_infer.sh MINDIR_PATH DATASET_PATH NEED_PREPROCESS DEVICE_ID CATEGORY [DEVICE_TARGET]
# NEED_PREPROCESS: y, or n to use what an earlier call prepared. DEVICE_TARGET: Ascend, GPU or CPU; without it Ascend
# where there is one, else CPU. For Ascend and GPU, MS_LITE_HOME names the vendor's package (docs/ascend.md).

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source-path=SCRIPTDIR
source "$STPM_ROOT/scripts/mindspore_lite.sh"

readonly PROGRAM=$STPM_ROOT/ascend_310_infer/build/stpm_infer

# with_maps COMMAND...: run it while no inference program, such as one that was started by hand, writes into the maps.
with_maps() {
  [[ -d $OUT/maps ]] || return 0
  (
    lock "$OUT/maps/.infer.lock" "$OUT/maps"
    "$@"
  )
}

# selftest MODEL DEVICE ID: have the program infer the pattern whose map stands in the model's JSON, unless this program
# passed with this model, device and library before.
selftest() {
  local json key
  json=$(dirname -- "$1")/$(basename -- "${1%.*}").json
  if ! grep -Eqs '"selftest"[[:space:]]*:[[:space:]]*\{' -- "$json"; then
    echo "no self-test: $json holds none; a model that is exported again has one"
    return
  fi
  key="$(sha256sum <"$1" | cut -c -64) $(sha256sum <"$PROGRAM" | cut -c -64) $2 $3 ${MS_LITE_HOME:-}"
  if grep -Fqsx -- "$key" "$OUT/selftest.passed"; then return; fi
  echo "testing the model on $2 ..."
  stage "$OUT/selftest.log" with_libraries "$PROGRAM" --mindir_path "$1" --device_type "$2" --device_id "$3" --selftest
  cat -- "$OUT/selftest.log"
  echo "$key" >>"$OUT/selftest.passed"
}

main() {
  choose_python
  local usage="run_310_infer.sh MINDIR_PATH DATASET_PATH NEED_PREPROCESS DEVICE_ID CATEGORY [DEVICE_TARGET]"
  if (($# < 5 || $# > 6)); then
    echo "usage: $usage" >&2
    exit 2
  fi
  local mindir dataset preprocess=$3 device category=$5 target=${6:-}
  [[ -f $1 ]] || die "MINDIR_PATH $1: no such file"
  [[ -d $2 ]] || die "DATASET_PATH $2: no such folder"
  mindir=$(realpath -- "$1") dataset=$(realpath -- "$2")
  [[ $preprocess == [yn] ]] || die "NEED_PREPROCESS: expected y or n, got '$preprocess'"
  [[ ! $4 =~ ^(Ascend|GPU|CPU)$ ]] || die "DEVICE_ID: got '$4', but DEVICE_TARGET comes last: $usage"
  device=$(device_id "$4")
  [[ -n $device ]] || die "DEVICE_ID: expected a whole number, got '$4'"
  check_category "$category"
  if [[ ! -d $dataset/$category/test ]] && [[ -z $(find "$dataset" -maxdepth 1 -type f -print -quit) ]]; then
    die "CATEGORY $category: no folder $category/test in DATASET_PATH $dataset, and no unlabelled images either"
  fi
  [[ -n $target ]] || target=$(present_device)
  [[ $target =~ ^(Ascend|GPU|CPU)$ ]] || die "DEVICE_TARGET: expected Ascend, GPU or CPU, got '$target'"
  if [[ -n ${MS_LITE_HOME:-} ]]; then MS_LITE_HOME=$(realpath -m -- "$MS_LITE_HOME"); fi
  require_package "$target"

  local acc=$PWD/acc.log
  OUT=$PWD/$category/310_infer
  mkdir -p -- "$OUT"
  lock "$OUT/.lock" "$OUT"
  with_maps true
  rm -f -- "$acc"
  cd -- "$STPM_ROOT"
  "$STPM_PYTHON" -m src.model.sidecar --mindir_path "$mindir" --category "$category" >/dev/null

  local inputs=(--data_dir "$dataset" --img_dir "$OUT/inputs" --category "$category" --mindir_path "$mindir")
  echo "building${MS_LITE_HOME:+ with MindSpore Lite $(package_version)} ..."
  stage "$OUT/build.log" bash ascend_310_infer/build.sh "$target"
  selftest "$mindir" "$target" "$device"
  if [[ $preprocess == y ]]; then
    echo "preprocessing ..."
    stage "$OUT/preprocess.log" "$STPM_PYTHON" preprocess.py "${inputs[@]}"
  else
    stage "$OUT/preprocess.log" "$STPM_PYTHON" preprocess.py "${inputs[@]}" --check
  fi
  echo "inferring on $target ..."
  # whatever is not written by this run would be refused afterwards
  with_maps rm -rf -- "$OUT/maps"
  stage "$OUT/infer.log" with_libraries "$PROGRAM" --mindir_path "$mindir" --input_path "$OUT/inputs" \
    --result_path "$OUT/maps" --time_path "$OUT" --device_type "$target" --device_id "$device"
  cat -- "$OUT/timing.txt"
  stage "$OUT/postprocess.log" "$STPM_PYTHON" postprocess.py --result_dir "$OUT/maps" --data_dir "$dataset" \
    --label_dir "$OUT/inputs" --category "$category" --mindir_path "$mindir" --out_dir "$OUT"
  # what an earlier call made of the other kind of data would pass for a part of this result
  if [[ -d $dataset/$category/test ]]; then
    rm -f -- "$OUT/scores.csv"
    tail -n 3 -- "$OUT/postprocess.log" | tee -- "$acc"
  else
    rm -f -- "$OUT/results.json"
    tail -n 1 -- "$OUT/postprocess.log"
  fi
}

main "$@"
