"""Flags: what each takes and refuses, and that the documents tell their defaults."""

import pytest

import export
import postprocess
from src.config import FLAGS, build_parser, resolve_aliases

# Of every kind of flag the values at its bounds, and what they are read as.
TAKEN = {
    "lr": [("1e-45", 1e-45), ("0.4", 0.4), ("3.4e38", 3.4e38)],
    "threshold": [("1e-30", 1e-30), ("3.4e38", 3.4e38)],
    "momentum": [("0", 0.0), ("0.9", 0.9), ("1.5", 1.5), ("3.4e38", 3.4e38)],
    "weight_decay": [("0", 0.0), ("1e-4", 1e-4)],
    "cache_budget": [("0", 0.0), ("0.25", 0.25)],
    "epoch": [("1", 1), ("2147483647", 2147483647)],
    "steps": [("1", 1), ("300", 300)],
    "batch_size": [("1", 1), ("4096", 4096)],
    "eval_batch_size": [("1", 1), ("4096", 4096)],
    "device_num": [("1", 1), ("16", 16)],
    "num_class": [("1", 1), ("1001", 1001)],
    "device_id": [("0", 0), ("7", 7)],
    "eval_interval": [("0", 0), ("5", 5)],
    "seed": [("0", 0), ("2147483647", 2147483647)],
    "out_size": [("32", (32, 32)), ("256", (256, 256))],
    "image_size": [("32", (32, 32)), ("256", (256, 256)), ("4096", (4096, 4096)), ("320x1024", (320, 1024))],
    "roi": [("0,0,1,1", (0, 0, 1, 1)), ("12,7,640,480", (12, 7, 640, 480))],
    "train_tile": [("0", 0), ("32", 32), ("256", 256)],
    "val_split": [("0", 0.0), ("0.2", 0.2), ("0.9999", 0.9999)],
    "target_fpr": [("1e-9", 1e-9), ("0.01", 0.01), ("0.9999", 0.9999)],
    "category": [("bottle", "bottle"), ("a b", "a b"), ("..x", "..x"), ("-", "-")],
    "resume": [("True", True), ("true", True), ("FALSE", False), ("false", False)],
    "data_url": [("a b", "a b"), (".", ".")],
    "image_path": [("x.png", "x.png")],
    "ckpt_path": [("x.ckpt", "x.ckpt")],
}
REFUSED = {
    "lr": ("0", "-0.1", "nan", "inf", "3.5e38", "x", ""),
    "threshold": ("0", "-1", "nan", "inf", "3.5e38"),
    "momentum": ("-1e-9", "nan", "inf"),
    "weight_decay": ("-1e-9", "nan", "inf"),
    "cache_budget": ("-1e-9", "nan", "inf"),
    "epoch": ("0", "-1", "1.5", "2147483648", "nan"),
    "steps": ("0", "1e3"),
    "batch_size": ("0", "4097", "1.0"),
    "eval_batch_size": ("0", "4097"),
    "device_num": ("0",),
    "num_class": ("0",),
    "device_id": ("-1", "0.5"),
    "eval_interval": ("-1",),
    "seed": ("-1", "4294967296", "one"),
    "out_size": ("16", "40"),
    "image_size": ("16", "33", "4112", "256.0", "-256", "320X64", "64x33", "64x", "x64", "64x64x64", "auto:256"),
    "roi": ("", "1,2,3", "0,0,0,5", "0,0,5,0", "-1,0,5,5", "0.5,0,5,5", "1,2,3,4,5"),
    "train_tile": ("16", "-32", "40", "auto", ""),
    "val_split": ("-0.1", "1", "1.5", "nan"),
    "target_fpr": ("0", "1", "-0.1", "nan"),
    "category": ("", ".", "..", "a/b", "/", "a\0b"),
    "resume": ("yes", "1", "0", ""),
    "data_url": ("",),
    "image_path": ("",),
    "ckpt_path": ("",),
}


@pytest.mark.parametrize(("flag", "text", "value"), [(flag, *pair) for flag, pairs in TAKEN.items() for pair in pairs])
def test_taken(flag, text, value):
    found = getattr(build_parser("", (flag,)).parse_args([f"--{flag}={text}"]), flag)
    assert found == value
    assert isinstance(found, type(value))
    assert not isinstance(found, bool) or isinstance(value, bool)


@pytest.mark.parametrize(("flag", "text"), [(flag, text) for flag, texts in REFUSED.items() for text in texts])
def test_refused(capsys, flag, text):
    with pytest.raises(SystemExit) as stop:
        build_parser("", (flag,)).parse_args([f"--{flag}={text}"])
    assert stop.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"argument --{flag}: expected " in message
    assert repr(text) in message


def test_choices(capsys):
    """Exactly those that are listed here, letter for letter."""
    choices = {
        "device_target": ("auto", "Ascend", "GPU", "CPU"),
        "recipe": ("published", "recommended"),
        "lr_schedule": ("constant", "cosine"),
        "amp_level": ("O0", "O1", "O2", "O3"),
        "cache_teacher": ("auto", "on", "off"),
        "mask_rule": ("half", "erode", "dilate"),
        "file_format": ("MINDIR", "AIR", "ONNX"),
        "mindir_version": ("native", "1"),
        "format": ("csv", "jsonl"),
        "after": ("keep", "move", "delete"),
    }
    assert {flag for flag, facts in FLAGS.items() if "choices" in facts} == set(choices)
    for flag, names in choices.items():
        parser = build_parser("", (flag,))
        assert [getattr(parser.parse_args([f"--{flag}", name]), flag) for name in names] == list(names)
        for name in (names[0].swapcase(), "", "other"):
            with pytest.raises(SystemExit):
                parser.parse_args([f"--{flag}", name])
            assert f"argument --{flag}: invalid choice: {name!r}" in capsys.readouterr().err


def test_switch():
    """It is off, and on where it is named alone."""
    parser = build_parser("", ("resume", "save_sample"))
    assert vars(parser.parse_args([])) == {"resume": False, "save_sample": False}
    assert vars(parser.parse_args(["--resume"])) == {"resume": True, "save_sample": False}


@pytest.mark.parametrize("words", [["--no_such_flag", "1"], ["--epo", "3"], ["stray"], ["--epoch"]])
def test_unknown_flags(words):
    """Abbreviations among them: a flag that is added later would change what they mean."""
    with pytest.raises(SystemExit):
        build_parser("", ("epoch",)).parse_args(words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--ckpt_path", "a"], "a"),
        (["--ckpt_url", "a"], "a"),
        (["--ckpt_path", "a", "--ckpt_url", "a"], "a"),
        (["--ckpt_path", "a", "--ckpt_url", "b"], "--ckpt_path and --ckpt_url are the same flag: give one"),
        ([], "--ckpt_path is required: checkpoint that train.py wrote"),
    ],
)
def test_twins(capsys, words, expected):
    parser = build_parser("", ("ckpt_path", "ckpt_url"))
    args = parser.parse_args(words)
    if expected == "a":
        resolve_aliases(parser, args, "ckpt_path", "ckpt_url")
        assert args.ckpt_path == "a"
        return
    with pytest.raises(SystemExit):
        resolve_aliases(parser, args, "ckpt_path", "ckpt_url")
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "size"), [([], None), (["--out_size", "64"], (64, 64)), (["--image_size", "64"], (64, 64))]
)
def test_sizes(words, size):
    """The zoo's name for the side of images and maps, where it stands in the zoo's programs; it need not be given."""
    needed = ["--category", "c", "--ckpt_file", "a"]
    assert export.parse_args([*needed, *words]).image_size == size
    needed = ["--category", "c", "--result_dir", "a", "--data_dir", "a", "--label_dir", "a"]
    assert postprocess.parse_args([*needed, *words]).image_size == size


def test_two_sizes(capsys):
    with pytest.raises(SystemExit):
        export.parse_args(["--category", "c", "--ckpt_file", "a", "--out_size", "64", "--image_size", "96"])
    assert "--image_size and --out_size are the same flag: give one" in capsys.readouterr().err
