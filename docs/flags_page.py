"""Write docs/flags.md, every flag by program, from the flags' declarations and the programs that pick them.

python -m docs.flags_page > docs/flags.md
"""

import importlib
import re

from src.config import FLAGS

# Programs whose flags are declared above, and what each is for.
PROGRAMS = {
    "train.py": "Trains a student ([training](training.md)); `scripts/run_standalone_train.sh` and "
    "`scripts/run_distribute_train.sh` call it.",
    "test.py": "Evaluates a checkpoint or an exported model ([evaluation](verdict.md#evaluation)); "
    "`scripts/run_eval.sh` calls it.",
    "export.py": "Exports a checkpoint for other runtimes ([export](inference.md#export)).",
    "preprocess.py": "Turns images into inputs of the C++ program; `scripts/run_310_infer.sh` calls it.",
    "postprocess.py": "Scores the maps of the C++ program; `scripts/run_310_infer.sh` calls it.",
    "src/predict.py": "Scores new images ([new images](verdict.md#new-images)): `python -m src.predict`, or "
    "`scripts/run_predict.sh`.",
    "src/calibrate.py": "Sets the threshold of a trained model ([threshold](verdict.md#threshold), "
    "[on the device](verdict.md#threshold-calibrated-on-the-device)): "
    "`python -m src.calibrate`.",
    "src/monitor.py": "Compares recent scores of a line with those that the threshold was set by "
    "([after months on the line](verdict.md#after-months-on-the-line)): `python -m src.monitor`, or "
    "`scripts/run_monitor.sh`.",
    "src/sweep/__main__.py": "Trains and evaluates all categories ([all categories](training.md#all-categories)): "
    "`python -m src.sweep`, or `scripts/run_all_mvtec.sh`.",
}
# Flags that a program asks for itself: their declarations, which programs share, do not say so.
_REQUIRED = {
    "train.py": {"data_url": "required", "pre_ckpt_path": "required, here or as --ckpt_url"},
    "test.py": {
        "data_url": "required, here or as --eval_url",
        "ckpt_path": "required, here or as --ckpt_url",
    },
    "src/predict.py": {"image_path": "required, or --watch or --stdin", "ckpt_path": "required"},
    "src/calibrate.py": {
        "ckpt_path": "required, here or as --mindir_path",
        "category": "the model's own",
        "image_path": "required, unless --scores is given",
        "label_dir": "inputs beside the folder of --scores, or the folder around it",
    },
    "src/monitor.py": {"scores": "required", "ckpt_path": "required"},
    "src/sweep/__main__.py": {"data_url": "required", "pre_ckpt_path": "required", "device_num": "required"},
}
_PAGE = """[STPM](../README.md) | [简体中文](zh/flags.md)

# Flags

`python -m docs.flags_page > docs/flags.md` writes this page from `src/config.py`, where every flag is declared once.

The Python programs refuse flags that they do not know, and abbreviations. `--help` shows what a program takes,
`--version` the project's version. Scripts hand on what follows their own arguments. A switch is on where it is named
alone: `--resume` is `--resume True`.

{contents}- [Programs with flags of their own](#programs-with-flags-of-their-own)
- [Environment variables](#environment-variables)

{programs}## Programs with flags of their own

| program | flags |
| --- | --- |
| `python -m src.dataset` | `--check DATASET_PATH`: [check a data set](data.md#checking-a-data-set) |
| `python -m src.data.convert` | `--layout`, `--copy`, `--category`, `--good`, `--test_good`, `--defect`: \
[convert another layout](data.md#other-layouts) |
| `python -m src.pth2ckpt` | `--download`, `--mirror`, `--pth_path`, `--ckpt_path`: fetch and convert \
[PyTorch weights](training.md#pretrained-teachers) |
| `python -m src.demo_data` | `--out_dir`, `--product`, `--seed`: [the demo's category](data.md#the-demos-category) |
| `python -m src.report.page` | `--index FOLDER`: write the index of a sweep's reports |
| `python -m src.report.table` | `--results`, `--readme`: [results table](accuracy.md#results) of a page |
| `python -m src.model.sidecar` | `--mindir_path`, `--category`: check an exported model, print its threshold |
| `python -m src.model.conversion` | the JSON of a converted model; `scripts/convert_ascend.sh` calls it |
| `ascend_310_infer/build/stpm_infer` | [the C++ program](inference.md#the-c-program); `--help` lists them |
| `ascend_310_infer/build/stpm_inspect` | [on the line](line.md); `--help` lists them |
| `python -m benchmarks.*` | described at the top of each file |

## Environment variables

| variable | meaning |
| --- | --- |
| `STPM_FOREGROUND` | 1: a script stays in the foreground and returns the exit status |
| `STPM_PYTHON` | Python of the scripts; default: that of `.venv`, else `python3` |
| `STPM_BASE_PYTHON` | Python 3.11 or 3.12 to make `.venv` from; default: [what is found](robustness.md#machines) |
| `STPM_VENV` | folder of the environment that `run_demo.sh` and `run_tests.sh` make; default: the project's `.venv` |
| `TMPDIR`, `RAY_TMPDIR` | folders of temporary files, and of Ray's; default: `/tmp` |
| `OMP_NUM_THREADS` | threads of OpenMP; default: [the cores that may be used](robustness.md#machines) |
| `STPM_MIRROR` | where [PyTorch weights](training.md#pretrained-teachers) are fetched from; default: the publisher |
| `http_proxy`, `https_proxy`, `no_proxy` | proxies through which they are fetched |
| `STPM_MAX_PIXELS` | how many pixels an image may have; default: 178956970 ([data](data.md#images)) |
| `MSRUN_PORT`, `STPM_MSRUN_OPTIONS` | [distributed training](training.md#distributed-training) |
| `RAY_ADDRESS` | cluster on which [all categories](training.md#all-categories) are trained |
| `MS_LITE_HOME` | MindSpore Lite for the [C++ program](inference.md#the-c-program) |
| `STPM_DAVINCI` | file that tells of [an Ascend](ascend.md#what-the-scripts-look-for); default: its driver's own |
| `ASCEND_HOME` | folder with its driver's `driver/lib64`; default: `/usr/local/Ascend` |
| `GLOG_v` | log level of MindSpore, 0 (all) to 4 (critical errors only); default: 3 |
| `ONEDNN_MAX_CPU_ISA` | AVX2, unless you set it, for [MindSpore's convolutions](performance.md#the-network-on-cpu) |
| `STPM_FUZZ_EXAMPLES`, `STPM_SOAK_IMAGES` | size of [tests that run long](robustness.md#tests-that-run-long) |
"""


def flags_of(program: str, *, picked_as: str = "FLAG_NAMES") -> tuple[str, ...]:
    """Return the flags that a program picks from ``src.config`` under this name; none where it has no such name."""
    module = importlib.import_module(program.removesuffix(".py").replace("/", "."))
    return getattr(module, picked_as, ())


def explain(name: str, program: str) -> tuple[str, str]:
    """Return meaning and default of a flag of a program, as its help text has them.

    A help text is "meaning; default: value; in PROGRAM: value"; "PROGRAM: ..." in a meaning is what it is there.
    """
    text, _, default = FLAGS[name]["help"].partition("; default: ")
    meaning, *parts = re.split(r"(?:^|\. )([\w/]+\.py): ", text)
    if special := dict(zip(parts[::2], parts[1::2], strict=True)).get(program):
        meaning = f"{meaning}: {special}" if meaning else special
    default, *others = default.split("; in ")
    default = dict(one.split(": ", 1) for one in others).get(program, default)
    declared = FLAGS[name].get("default")
    if declared is not None:
        default = f"{declared:g}" if isinstance(declared, float) else str(declared)
    elif FLAGS[name].get("required"):
        default = "required"
    default = _REQUIRED.get(program, {}).get(name, default)
    return meaning, default


def _as_markdown(text: str) -> str:
    """Mark up what stands for itself in a help text: flags, names of files, quoted words."""
    return re.sub(r"'(\S+)'|(--\w+|<\w+>|[\w/]+\.(?:py|sh|json|html)|train/good)", r"`\1\2`", text)


def title_of(program: str) -> str:
    """Return a program's heading."""
    return "src.sweep" if program == "src/sweep/__main__.py" else program  # Markdown would make __main__ bold


def _program_section(program: str) -> str:
    text = f"## {title_of(program)}\n\n{PROGRAMS[program]}\n\n"
    text += "| flag | meaning | choices | default |\n| --- | --- | --- | --- |\n"
    for name in flags_of(program) or flags_of(program, picked_as="OWN_FLAGS"):
        meaning, default = explain(name, program)
        choices = ", ".join(f"`{choice}`" for choice in FLAGS[name].get("choices", ()))
        cells = f"`--{name}`", _as_markdown(meaning), choices, _as_markdown(default)
        text += "|" + "".join(f" {cell} |" if cell else " |" for cell in cells) + "\n"
    if handed_on := flags_of(program, picked_as="TRAINING_FLAGS"):
        text += f"\nIt hands on to train.py: {', '.join(f'`--{name}`' for name in handed_on)}.\n"
    return text + "\n"


def flags_page() -> str:
    """Return docs/flags.md."""
    contents = "".join(f"- [{title}](#{re.sub('[./]', '', title)})\n" for title in map(title_of, PROGRAMS))
    return _PAGE.format(contents=contents, programs="".join(map(_program_section, PROGRAMS)))


if __name__ == "__main__":
    print(flags_page(), end="")
