#!/usr/bin/env bash
# Train one category on several devices, data-parallel, in the background (STPM_FOREGROUND=1 stays). Output: ./CATEGORY/
#   bash scripts/run_distribute_train.sh DATASET_PATH BACKBONE_PATH CATEGORY DEVICE_NUM [--flag value ...]
# MSRUN_PORT: port of the ranks' scheduler; default: a free one.
# STPM_MSRUN_OPTIONS: further options of msrun, which take precedence; for several hosts, see docs/training.md.

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

free_port() {
  "$STPM_PYTHON" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
}

main() {
  choose_python
  usage_unless 4 "run_distribute_train.sh DATASET_PATH BACKBONE_PATH CATEGORY DEVICE_NUM [--flag value ...]" "$@"
  local dataset=$1 backbone=$2 category=$3 ranks=$4 port more
  shift 4
  [[ -d $dataset ]] || die "DATASET_PATH $dataset: no such folder"
  [[ -f $backbone || $backbone == random ]] || die "BACKBONE_PATH $backbone: no such file"
  check_category "$category"
  [[ -d $dataset/$category ]] || die "CATEGORY $category: no such folder in $dataset"
  [[ $ranks =~ ^[1-9][0-9]*$ ]] || die "DEVICE_NUM: expected a whole number of at least 1, got '$ranks'"
  port=${MSRUN_PORT:-$(free_port)}
  if [[ ! $port =~ ^[0-9]{1,5}$ ]] || ((10#$port < 1 || 10#$port > 65535)); then
    die "MSRUN_PORT: expected a port, 1 to 65535, got '$port'"
  fi
  read -ra more <<<"${STPM_MSRUN_OPTIONS:-}"

  PATH=$(dirname -- "$(command -v "$STPM_PYTHON")"):$PATH # msrun looks python3 up there
  run_logged "$PWD/$category/train.log" "$STPM_PYTHON" -m mindspore.parallel.cluster.run --join=True --bind_core=True \
    --worker_num="$ranks" --local_worker_num="$ranks" --master_port="$port" --log_dir="$PWD/$category/msrun" \
    "${more[@]}" python3 "$STPM_ROOT/train.py" --distributed True --data_url "$dataset" --pre_ckpt_path "$backbone" \
    --category "$category" --train_url "$PWD" "$@"
}

main "$@"
