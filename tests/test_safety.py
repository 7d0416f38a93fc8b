"""What a name or a file could try: run code, write elsewhere, or break what names it."""

import ast
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import torch

import export
import postprocess
import preprocess
import test as evaluate
import train
from src import predict, pth2ckpt
from src.exchange.manifest import read_manifest
from src.utils import run_entry_point
from tests.conftest import ROOT, call, make_tree, read_csv, run_python, train_arguments
from tests.damage import contents, float_map, put
from tests.test_scripts import run_script

NAMES = (
    "a b;touch x.png",
    "$(touch x).png",
    "`touch x`.jpg",
    "<b onload='x'>\"&.png",
    "caf\udce9.png",
    "'.png",
    "-x.png",
)
PYTHON = [*ROOT.glob("*.py"), *ROOT.glob("src/**/*.py")]
SHELL = [*ROOT.glob("scripts/*.sh"), ROOT / "ascend_310_infer/build.sh"]


class Evil:
    """Creates a file where it is unpickled."""

    def __reduce__(self):
        return (open, ("owned", "w"))


@pytest.mark.parametrize("form", ["pickle", "torch"])
@pytest.mark.parametrize("entry", ["train", "test", "predict", "pth2ckpt"])
def test_pickles(refused, tree, tmp_path, monkeypatch, form, entry):
    """None is executed, whatever its name says."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ("in.pth" if entry == "pth2ckpt" else "in.ckpt")
    if form == "torch":
        torch.save(Evil(), path)
    else:
        path.write_bytes(pickle.dumps(Evil()))
    commands = {
        "train": (train, *train_arguments(tree, path, "out", epoch=1)),
        "test": (evaluate, "--eval_url", tree, "--ckpt_path", path, "--category", "widget", "--out_dir", "out"),
        "predict": (predict, "--image_path", tree / "widget/test/hole", "--ckpt_path", path, "--out_dir", "out"),
        "pth2ckpt": (pth2ckpt, "--pth_path", path, "--ckpt_path", "out.ckpt"),
    }
    assert f"{path}: not a readable" in refused(*commands[entry])
    assert not (tmp_path / "owned").exists()
    pickle.loads(pickle.dumps(Evil())).close()
    assert (tmp_path / "owned").exists(), "else this test proves nothing"


def called(tree):
    """Every call of a module, with the full name of what is called, whatever it was imported as."""
    full = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            full |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            yield full.get(first, first) + dot + rest, {word.arg: ast.unparse(word.value) for word in node.keywords}


RUNS_TEXT = {"eval", "exec", "compile", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
UNPICKLERS = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}


def unsafe(text):
    """Calls in a program that can make code of data: they execute a text, start a shell or unpickle."""
    for name, keywords in called(ast.parse(text)):
        if name in RUNS_TEXT or name.partition(".")[0] in UNPICKLERS or keywords.get("shell", "False") != "False":
            yield name
        if name == "torch.load" and keywords.get("weights_only") != "True":
            yield name
        if name == "numpy.load" and keywords.get("allow_pickle", "False") != "False":
            yield name


def test_unsafe_calls():
    """No call by its name can; what the libraries do behind theirs, the test above tries."""
    for path in PYTHON:
        assert not list(unsafe(path.read_text(encoding="utf-8"))), path
    for path in SHELL:
        assert not re.search(r"(^|[\s;&|(])(eval|sh -c|bash -c)\s", path.read_text()), path


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from os import system as s\ns('x')", ["os.system"]),
        ("import pickle as p\np.loads(x)", ["pickle.loads"]),
        ("import numpy as np\nnp.load(x, allow_pickle=True); np.load(x)", ["numpy.load"]),
        ("import torch\ntorch.load(x); torch.load(x, weights_only=True)", ["torch.load"]),
        ("import subprocess\nsubprocess.run(x, shell=True); subprocess.run(x)", ["subprocess.run"]),
        ("import re\nre.compile(x); a.eval()", []),
    ],
)
def test_unsafe_calls_are_found(text, found):
    """Under any name, and no safe ones."""
    assert list(unsafe(text)) == found


def test_dependencies():
    """Every one is pinned, and what is downloaded is checked."""
    for path in (
        *ROOT.glob("requirements*.txt"),
        ROOT / "benchmarks/requirements.txt",
        ROOT / "ascend_310_infer/sdk.txt",
    ):
        for line in path.read_text().splitlines():
            assert re.match(r"(#|-r \S+$|[\w-]+==[\d.]+( |$))", line), (path, line)
    assert "--hash=sha256:" in (ROOT / "ascend_310_infer/sdk.txt").read_text()
    for path in (*SHELL, *PYTHON):
        text = path.read_text()
        assert "pip download" not in text or "--require-hashes" in text, path
        assert not re.search(r"\b(curl|wget|urlretrieve|urlopen)\b", text), path


@pytest.fixture
def odd_names(tmp_path):
    """A data set whose images have such names."""
    tree = make_tree(tmp_path / "data", good=len(NAMES), defects=("hole",), per_defect=2)
    folder = tree / "widget/test/good"
    for path, name in zip(sorted(folder.iterdir()), NAMES, strict=True):
        path.rename(folder / name)
    (tree / "widget/test/hole").rename(tree / "widget/test/<i>hole")
    (tree / "widget/ground_truth/hole").rename(tree / "widget/ground_truth/<i>hole")
    return tree


class Tags(HTMLParser):
    """Names of the tags of a page."""

    def __init__(self, page):
        super().__init__()
        self.found, self.texts = set(), []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.add(tag)
        assert not [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.texts.append(data)


def test_names_in_reports(odd_names, exported, tmp_path):
    """Evaluation, report and prediction take any."""
    model = ("--ckpt_path", exported / "widget.onnx", "--threshold", 1e-9, "--out_dir", tmp_path / "out")
    flags = ("--eval_url", odd_names, "--category", "widget", "--report", tmp_path / "out", "--save_sample", "True")
    assert call(evaluate, *model, *flags) == 0
    results = json.loads((tmp_path / "out/widget/results.json").read_text(encoding="utf-8"))
    assert {f"good/{name}" for name in NAMES} < {entry["file"] for entry in results["scores"]}
    page = Tags((tmp_path / "out/report.html").read_text(encoding="utf-8"))
    assert not {"b", "i"} & page.found
    for name in NAMES:
        shown = f"good/{name}: score".replace("\udce9", "\ufffd")  # what a browser makes of a byte that is no text
        assert any(shown in text for text in page.texts), name

    folder = odd_names / "widget/test/good"
    assert call(predict, *model, "--image_path", folder, "--save_sample", "True") == 0
    content = json.loads((tmp_path / "out/predictions.json").read_text(encoding="utf-8"))
    assert {entry["file"] for entry in content["images"]} == set(NAMES)
    assert {row["file"] for row in read_csv(tmp_path / "out/scores.csv")} == set(NAMES)
    assert {path.name for path in (tmp_path / "out/pictures").iterdir()} == {f"{name}.png" for name in NAMES}


@pytest.mark.parametrize("file_format", ["MINDIR", "ONNX"])
@pytest.mark.usefixtures("device")
def test_names_of_exports(trained, tmp_path, file_format):
    """MindSpore itself refuses a path with anything but unaccented letters, digits and a few signs."""
    category = "caf\u00e9 <b>;$(touch x)"
    shutil.copy(trained[0] / "widget/widget_last.ckpt", tmp_path / f"{category}.ckpt")
    about = json.loads((trained[0] / "widget/widget_last.json").read_text())
    (tmp_path / f"{category}.json").write_text(json.dumps(about | {"category": category}))
    flags = ("--category", category, "--out_dir", tmp_path / "a b", "--file_format", file_format)
    assert call(export, "--ckpt_file", tmp_path / f"{category}.ckpt", *flags) == 0
    names = {f"{category}.{file_format.lower()}", f"{category}.json", f".{category}.lock"}
    assert {path.name for path in (tmp_path / "a b").iterdir()} == names


def test_names_in_manifests(odd_names, tmp_path):
    """Pre- and postprocessing take any."""
    common = ("--data_dir", odd_names, "--category", "widget")
    assert call(preprocess, *common, "--img_dir", tmp_path / "in", "--image_size", 64) == 0
    assert call(preprocess, *common, "--img_dir", tmp_path / "in", "--image_size", 64, "--check") == 0
    for name in read_manifest(tmp_path / "in").names:
        put(f"maps/{name}_0.bin", float_map(64, 2))(tmp_path)
    flags = ("--label_dir", tmp_path / "in", "--result_dir", tmp_path / "maps", "--out_dir", tmp_path / "out")
    assert call(postprocess, *common, *flags) == 0
    results = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    assert {f"good/{name}" for name in NAMES} < {entry["file"] for entry in results["scores"]}


def test_names_on_a_terminal(odd_names, tmp_path):
    """Those that are no text are printed, and where it knows ASCII alone, too."""
    put("data/widget/test/good/caf\udce9.png", "x")(tmp_path)
    flags = ("--data_dir", odd_names, "--category", "widget", "--img_dir", tmp_path / "in\udce9")
    environment = {"PYTHONIOENCODING": "ascii"}
    done = run_python("preprocess.py", *flags, env=environment)
    assert done.returncode == 1
    assert "caf\\udce9.png: not a readable image" in done.stderr
    (odd_names / "widget/test/good/caf\udce9.png").unlink()
    done = run_python("preprocess.py", *flags, env=environment)
    assert done.returncode == 0, done.stderr
    assert "in\\udce9" in done.stdout


def test_full_disk_below_stdout(tree):
    """It is an error like others."""
    command = [sys.executable, "-m", "src.dataset", "--check", tree]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=buffered, check=False
        )
    assert done.returncode != 0
    assert "error: [Errno 28] No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


CATEGORIES = {
    "run_standalone_train.sh": ("DATA", "MODEL", "CATEGORY"),
    "run_distribute_train.sh": ("DATA", "MODEL", "CATEGORY", 1),
    "run_eval.sh": ("DATA", "MODEL", "CATEGORY"),
    "run_310_infer.sh": ("MODEL", "DATA", "y", 0, "CATEGORY", "CPU"),
}


@pytest.fixture
def stub(tmp_path):
    """In place of python: notes what it is called with, a word a line, and fails."""
    path = tmp_path / "python stub"
    path.write_text(f'#!/bin/sh\nfor word; do echo "$word"; done >>"{tmp_path}/calls"\nexit 3\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("script", CATEGORIES)
def test_categories_in_scripts(script, stub, tmp_path):
    """A category that would lead out of the caller's folder is refused."""
    for name in ("data/widget", "here", "data-x"):
        (tmp_path / name).mkdir(parents=True)
    put("model.ckpt", "x")(tmp_path)
    real = {"DATA": tmp_path / "data", "MODEL": tmp_path / "model.ckpt"}
    before = contents(tmp_path)
    for category in ("", ".", "..", "../data-x", "/", "widget/"):
        words = [category if word == "CATEGORY" else real.get(word, word) for word in CATEGORIES[script]]
        done = run_script(script, *words, cwd=tmp_path / "here", STPM_PYTHON=str(stub), STPM_FOREGROUND="1")
        assert done.returncode == 1
        assert f"error: CATEGORY: expected the name of a folder, got '{category}'" in done.stderr
    assert contents(tmp_path) == before


SCRIPTS = CATEGORIES | {"run_predict.sh": ("DATA", "MODEL"), "run_all_mvtec.sh": ("DATA", "MODEL", 1)}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("name", ["a b;touch x", "$(touch x)", "`touch x`", "*", "caf\udce9", "a\nb"])
def test_names_in_scripts(script, name, stub, tmp_path):
    """They are handed on as they are."""
    here = tmp_path / "here"
    (here / name / name / "test").mkdir(parents=True)
    (here / "model").mkdir()
    put(f"model/{name}", "x")(here)
    real = {"DATA": name, "MODEL": f"model/{name}", "CATEGORY": name}
    environment = {"STPM_PYTHON": str(stub), "STPM_FOREGROUND": "1", "MSRUN_PORT": "8118"}
    done = run_script(script, *(real.get(word, word) for word in SCRIPTS[script]), cwd=here, **environment)
    assert done.returncode == 3, done.stderr
    calls = os.fsdecode((tmp_path / "calls").read_bytes())
    expected = (
        ("MODEL", "CATEGORY") if script == "run_310_infer.sh" else ("DATA", "MODEL")
    )  # what its first call is given
    for given in (real[word] for word in expected):
        assert f"\n{given}\n" in calls or f"\n{here / given}\n" in calls, calls
    assert not list(tmp_path.rglob("x"))


def test_closed_streams(tmp_path, monkeypatch):
    """A program may be started without stdout and stderr; Python then has None for them."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)

    def main(args):
        print("said", file=sys.stderr)
        (tmp_path / "done").touch()
        return 0

    assert run_entry_point(main, None) == 0
    assert (tmp_path / "done").exists()
    sys.stdout.close()
    sys.stderr.close()
