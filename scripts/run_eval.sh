#!/usr/bin/env bash
# Evaluate a checkpoint on one category, in the background (STPM_FOREGROUND=1 stays). Output: ./CATEGORY/
#   bash scripts/run_eval.sh DATASET_PATH CHECKPOINT_PATH CATEGORY [DEVICE_ID] [--flag value ...]

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

main() {
  choose_python
  usage_unless 3 "run_eval.sh DATASET_PATH CHECKPOINT_PATH CATEGORY [DEVICE_ID] [--flag value ...]" "$@"
  local dataset=$1 checkpoint=$2 category=$3 device
  shift 3
  device=$(device_id "$@")
  if [[ -n $device ]]; then shift; fi
  check_category "$category"
  [[ -d $dataset/$category ]] || die "CATEGORY $category: no such folder in DATASET_PATH $dataset"
  [[ -f $checkpoint ]] || die "CHECKPOINT_PATH $checkpoint: no such file"

  run_logged "$PWD/$category/eval.log" "$STPM_PYTHON" "$STPM_ROOT/test.py" --eval_url "$dataset" \
    --ckpt_path "$checkpoint" --category "$category" --device_id "${device:-0}" --out_dir "$PWD" "$@"
}

main "$@"
