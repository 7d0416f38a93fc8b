#!/usr/bin/env bash
# Train one category on one device, in the background (STPM_FOREGROUND=1 stays). Output: ./CATEGORY/
#   bash scripts/run_standalone_train.sh DATASET_PATH BACKBONE_PATH CATEGORY [DEVICE_ID] [--flag value ...]

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

main() {
  choose_python
  usage_unless 3 "run_standalone_train.sh DATASET_PATH BACKBONE_PATH CATEGORY [DEVICE_ID] [--flag value ...]" "$@"
  local dataset=$1 backbone=$2 category=$3 device
  shift 3
  device=$(device_id "$@")
  if [[ -n $device ]]; then shift; fi
  [[ -d $dataset ]] || die "DATASET_PATH $dataset: no such folder"
  [[ -f $backbone || $backbone == random ]] || die "BACKBONE_PATH $backbone: no such file"
  check_category "$category"
  [[ -d $dataset/$category ]] || die "CATEGORY $category: no such folder in $dataset"

  run_logged "$PWD/$category/train.log" "$STPM_PYTHON" "$STPM_ROOT/train.py" --data_url "$dataset" \
    --pre_ckpt_path "$backbone" --category "$category" --device_id "${device:-0}" --train_url "$PWD" "$@"
}

main "$@"
