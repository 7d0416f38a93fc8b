#!/usr/bin/env bash
# Compare recent scores of a line with those that the model's threshold was set by; exit status 0: as calibrated,
# 3: drifting, 4: too few to tell, 1 or 2: an error.
#   bash scripts/run_monitor.sh SCORES_CSV CHECKPOINT_PATH [--scores MORE_SCORES_CSV ...] [--flag value ...]

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

main() {
  choose_python
  usage_unless 2 "run_monitor.sh SCORES_CSV CHECKPOINT_PATH [--scores MORE_SCORES_CSV ...] [--flag value ...]" "$@"
  local scores=$1 checkpoint=$2
  shift 2
  [[ -f $scores ]] || die "SCORES_CSV $scores: no such file"
  [[ -f $checkpoint ]] || die "CHECKPOINT_PATH $checkpoint: no such file"
  PYTHONPATH=$STPM_ROOT "$STPM_PYTHON" -m src.monitor --scores "$scores" --ckpt_path "$checkpoint" "$@"
}

main "$@"
