#!/usr/bin/env bash
# Train and evaluate every category of a data set, DEVICE_NUM at a time, in the background (STPM_FOREGROUND=1 stays).
# Output: ./CATEGORY/ for each, ./sweep.log, ./results.{md,csv,json}. Run again, it goes on where it stopped.
#   bash scripts/run_all_mvtec.sh DATASET_PATH BACKBONE_PATH DEVICE_NUM [--flag value ...]

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

main() {
  choose_python
  usage_unless 3 "run_all_mvtec.sh DATASET_PATH BACKBONE_PATH DEVICE_NUM [--flag value ...]" "$@"
  local dataset backbone=$2 device_num=$3 out=$PWD
  [[ -d $1 ]] || die "DATASET_PATH $1: no such folder"
  dataset=$(realpath -- "$1")
  [[ -f $backbone || $backbone == random ]] || die "BACKBONE_PATH $backbone: no such file"
  if [[ -f $backbone ]]; then backbone=$(realpath -- "$backbone"); fi
  [[ $device_num =~ ^[1-9][0-9]*$ ]] || die "DEVICE_NUM: expected a whole number of at least 1, got '$device_num'"
  shift 3
  cd -- "$STPM_ROOT"
  local sweep=("$STPM_PYTHON" -m src.sweep --data_url "$dataset" --pre_ckpt_path "$backbone" --train_url "$out"
    --device_num "$device_num" "$@") status=0
  if [[ ${STPM_FOREGROUND:-0} == 1 && -t 2 ]]; then
    # a live table, on stderr, has the terminal for itself; what failed, and the summary, follow
    lock "$out/sweep.log" "$out/sweep.log"
    "${sweep[@]}" >"$out/sweep.log" || status=$?
    sed -nE '/^(failed: |[0-9]+ of [0-9]+ )/p' -- "$out/sweep.log"
    return "$status"
  fi
  run_logged "$out/sweep.log" "${sweep[@]}"
}

main "$@"
