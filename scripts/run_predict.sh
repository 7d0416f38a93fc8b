#!/usr/bin/env bash
# Score new pictures: verdicts, defect regions and, with --save_sample True, pictures. Output: ./predictions/
#   bash scripts/run_predict.sh IMAGE_FILE_OR_FOLDER CHECKPOINT_PATH [--flag value ...]

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

main() {
  choose_python
  usage_unless 2 "run_predict.sh IMAGE_FILE_OR_FOLDER CHECKPOINT_PATH [--flag value ...]" "$@"
  local images=$1 checkpoint=$2
  shift 2
  [[ -e $images ]] || die "IMAGE_FILE_OR_FOLDER $images: no such file or folder"
  [[ -f $checkpoint ]] || die "CHECKPOINT_PATH $checkpoint: no such file"
  PYTHONPATH=$STPM_ROOT "$STPM_PYTHON" -m src.predict --image_path "$images" --ckpt_path "$checkpoint" "$@"
}

main "$@"
