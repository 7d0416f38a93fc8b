#!/usr/bin/env bash
# From a bare machine to a trained, evaluated, exported student on a synthetic category, run by the C++ program too,
# with no downloads but packages.
#   bash scripts/run_demo.sh [--pre_ckpt_path resnet18.ckpt] [--steps 300]
# All results go to ./demo. Run again in the same way, it goes on where it stopped, or shows the result. Fewer steps with
# a random teacher say little.

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source-path=SCRIPTDIR
source "$STPM_ROOT/scripts/environment.sh"

# missing_tools: print what the C++ program needs and is not there.
missing_tools() {
  local tool
  for tool in cmake make c++; do
    command -v "$tool" >/dev/null || echo "$tool"
  done
  [[ -n ${MS_LITE_HOME:-} || $(uname -sm) == "Linux x86_64" ]] || echo "MS_LITE_HOME (see docs/inference.md)"
}

# inspect DATA: have the test images inspected in C++, from files to verdicts, and by predict.py, which says the same.
inspect() {
  local program=$STPM_ROOT/ascend_310_infer/build/stpm_inspect image
  local -x PYTHONPATH=$STPM_ROOT
  [[ -x $program ]] || {
    echo "not run: stpm_inspect; apt install libpng-dev libjpeg-dev libtiff-dev, then run this again"
    return
  }
  # a product's own would be set by good images that were not tested on
  "$STPM_PYTHON" -m src.calibrate --mindir_path washer/washer.mindir --category washer \
    --image_path "$1/washer/test/good"
  mkdir -p washer/inspected
  for image in "$1"/washer/test/*/*.png; do
    ln -sf -- "$image" "washer/inspected/$(basename -- "$(dirname -- "$image")")_$(basename -- "$image")"
  done
  echo "the same test images with stpm_inspect, from files to verdicts, and with predict.py:"
  "$program" --model washer/washer.mindir --images washer/inspected --out washer/inspected.csv 2>&1
  "$STPM_PYTHON" -m src.predict --ckpt_path washer/washer.mindir --image_path washer/inspected \
    --out_dir washer/predictions
  diff <(cut -d , -f 1,4,5 washer/inspected.csv) <(cut -d , -f 1,4,5 washer/predictions/scores.csv) ||
    die "washer/inspected.csv: other verdicts or numbers of regions than in washer/predictions/scores.csv, see above"
  echo "verdicts and numbers of regions of both are the same"
}

main() {
  local teacher=random steps=300 data=$PWD/demo/data out=$PWD/demo/random-teacher
  while (($# > 0)); do
    if [[ $1 == --pre_ckpt_path && $# -ge 2 ]]; then
      [[ -f $2 ]] || die "--pre_ckpt_path $2: no such file"
      teacher=$2 out=$PWD/demo/pretrained-teacher
    elif [[ $1 == --steps && $# -ge 2 ]]; then
      steps=$2
    else
      echo "usage: run_demo.sh [--pre_ckpt_path FILE] [--steps N]" >&2
      exit 2
    fi
    shift 2
  done

  set_up_environment requirements.txt
  (cd -- "$STPM_ROOT" && "$STPM_PYTHON" -m src.demo_data --out_dir "$data")

  local common=(--category washer --image_size 128)
  local train=("$STPM_PYTHON" "$STPM_ROOT/train.py" "${common[@]}" --data_url "$data" --train_url "$out"
    --pre_ckpt_path "$teacher" --recipe recommended --steps "$steps")
  if [[ -f $out/washer/washer_resume.ckpt ]]; then
    train+=(--resume)
  fi
  local status=0
  "${train[@]}" || status=$?
  # 3: it cannot go on with what is there, and has said why
  ((status != 3)) || die "$out: holds a training by other settings; remove this folder and run this again"
  ((status == 0)) || exit "$status"
  "$STPM_PYTHON" "$STPM_ROOT/test.py" "${common[@]}" --eval_url "$data" --out_dir "$out" --save_sample True \
    --ckpt_path "$out/washer/washer_last.ckpt"
  "$STPM_PYTHON" "$STPM_ROOT/export.py" --category washer --ckpt_file "$out/washer/washer_last.ckpt" \
    --out_dir "$out/washer"

  echo
  if [[ $teacher == random ]]; then
    echo "The teacher was random (no pretrained weights were given): a pretrained one finds defects better. To fetch it:"
    printf '  %q %q --download resnet18 --ckpt_path resnet18.ckpt\n' "$STPM_PYTHON" "$STPM_ROOT/src/pth2ckpt.py"
    echo "and then run this with --pre_ckpt_path resnet18.ckpt"
  fi
  echo "data      $data/washer"
  echo "model     $out/washer/washer_last.ckpt"
  echo "training  $out/washer/train.json"
  echo "results   $out/washer/results.json"
  echo "picture   $out/washer/samples.png"
  echo "exported  $out/washer/washer.mindir"

  local missing
  missing=$(missing_tools | paste -s -d ' ')
  echo
  if [[ -n $missing ]]; then
    echo "not run: the C++ program needs what is missing here: $missing"
    echo "Debian and Ubuntu: apt install cmake make g++ libpng-dev libjpeg-dev libtiff-dev; then run this again"
    return
  fi
  echo "the same test images with the C++ program on CPU (what was above is test.py's result):"
  cd -- "$out"
  bash "$STPM_ROOT/scripts/run_310_infer.sh" washer/washer.mindir "$data" y 0 washer CPU
  echo
  inspect "$data"
}

main "$@"
