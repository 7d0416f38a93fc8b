"""Export: the artefacts, what stands beside them, and that every runtime computes the checkpoint's maps."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import export as export_entry
import test as test_entry
from src import predict
from src.backend import StpmNetwork
from src.checkpoint import load_stpm
from src.data.images import formula_image, to_network_input
from src.data.view import ImageSize, square
from src.model import export as exporter
from src.model import model_file, sidecar
from src.model.sidecar import read_export
from src.stpm import STPM
from src.utils import InputError
from tests.conftest import ROOT
from tests.damage import contents

pytestmark = pytest.mark.usefixtures("device")

# What MindSpore Lite 2.0 reads of MINDIR 1, and this network uses.
PORTABLE = {"Conv2D", "Add", "Sub", "Mul", "Sqrt", "Div", "RealDiv", "ReLU", "MaxPool", "Reshape", "Transpose"}
STRUCTURE = {"MakeTuple", "Depend", "UpdateState", "Load", "Constant"}


def scores(folder):
    return [entry["score"] for entry in json.loads((folder / "widget/results.json").read_text())["scores"]]


def test_sidecar(exported, trained):
    assert {path.name for path in exported.iterdir()} == {"widget.mindir", "widget.onnx", "widget.json", ".widget.lock"}
    about, facts = read_export(exported / "widget.mindir", category="widget")
    assert facts["batch_size"] == 4
    assert facts["inputs"] == [{"name": "images", "shape": [4, 3, 64, 64], "dtype": "float32"}]
    assert facts["outputs"] == [{"name": "maps", "shape": [4, 1, 64, 64], "dtype": "float32"}]
    assert facts["largest_relative_difference"] < 1e-4
    assert facts["versions"]["mindspore"]
    sidecar = json.loads((trained[0] / "widget/widget_last.json").read_text())
    del sidecar["checkpoint"]["replaces"]  # of the file in training, not of what was exported
    assert {key: about.to_json()[key] for key in sidecar} == sidecar
    assert about.checkpoint["file"] == "widget_last.ckpt"
    assert read_export(exported / "widget.onnx", category="widget")[1]["batch_size"] == 1


def test_mindir(exported):
    """Version 1, of operators that MindSpore Lite 2.0 knows, its output under the name that the JSON gives."""
    from mindspore.train import mind_ir_pb2

    model = mind_ir_pb2.ModelProto()
    model.ParseFromString((exported / "widget.mindir").read_bytes())
    assert model.mind_ir_version == 1
    kinds = {node.op_type.removeprefix("REF::").partition(":")[0] for node in model.graph.node}
    primitives = {primitive.op_type for primitive in model.primitives}
    assert kinds | primitives <= PORTABLE | STRUCTURE
    assert "Conv2D" in kinds | primitives
    facts = read_export(exported / "widget.mindir", category="widget")[1]
    assert facts["mindir_version"] == 1
    assert "mindir_version" not in read_export(exported / "widget.onnx", category="widget")[1]
    outputs = facts["outputs"]
    assert [node.domain for node in model.graph.node if node.domain == outputs[0]["name"]] == ["maps"]


def test_native_mindir(checkpoint, session_tree, tmp_path, refused, monkeypatch):
    """It bears MindSpore's own version, as the JSON says, and gives the same scores; where it cannot be read, why."""
    import mindspore
    from mindspore.train import mind_ir_pb2

    flags = ("--ckpt_file", checkpoint, "--category", "widget", "--mindir_version", "native")
    assert export_entry.main(export_entry.parse_args([str(word) for word in (*flags, "--out_dir", tmp_path)])) == 0
    path = tmp_path / "widget.mindir"
    model = mind_ir_pb2.ModelProto()
    model.ParseFromString(path.read_bytes())
    newest = max(number for name, number in mind_ir_pb2.Version.items())
    facts = read_export(path, category="widget")[1]
    assert facts["mindir_version"] == model.mind_ir_version == newest > 1
    assert facts["largest_relative_difference"] < 1e-4  # loaded and compared
    assert [node.domain for node in model.graph.node if node.domain == "maps"] == ["maps"]

    def cannot(name):
        raise RuntimeError(f"{name}: Load file failed. Please check the correctness of the file.")

    monkeypatch.setattr(mindspore, "load", cannot)
    error = refused(
        predict, "--ckpt_path", path, "--image_path", session_tree / "widget/test/good", "--out_dir", tmp_path
    )
    assert (
        f"{path}: not a MINDIR that MindSpore {mindspore.__version__} can read; it bears version {newest} of" in error
    )
    assert "export.py --mindir_version 1 writes one for all" in error
    onnx = refused_export(refused, *flags[:2], *flags[4:], "--file_format", "ONNX")
    assert "--mindir_version native: is of MINDIR files, not of --file_format ONNX" in onnx


@pytest.mark.parametrize("suffix", ["mindir", "onnx"])
def test_maps(exported, trained, suffix):
    """They are those of the checkpoint."""
    batch_size = {"mindir": 4, "onnx": 1}[suffix]
    images = to_network_input(np.random.default_rng(5).integers(0, 255, (batch_size, 64, 64, 3), np.uint8))
    expected = StpmNetwork(load_stpm(STPM(), trained[0] / "widget/widget_last.ckpt"), view=square(64))(images)
    maps = model_file.load_exported(exported / f"widget.{suffix}")(images)
    assert exporter.largest_relative_difference(maps, expected) < 1e-4


@pytest.mark.parametrize("suffix", ["mindir", "onnx"])
def test_selftest(exported, suffix):
    """The values in the JSON are those that each runtime computes of the formula's image, at the places agreed on."""
    selftest = json.loads((exported / "widget.json").read_text())["selftest"]
    assert (selftest["input"], selftest["image_size"]) == ("pattern-1", 64)
    batch_size = {"mindir": 4, "onnx": 1}[suffix]
    images = to_network_input(np.repeat(formula_image(ImageSize(64, 64))[None], batch_size, 0))
    maps = model_file.load_exported(exported / f"widget.{suffix}")(images)
    rows, columns, values = zip(*selftest["map"], strict=True)
    lines = range(4, 64, 8)
    assert [*zip(rows, columns, strict=True)][:-1] == [(y, x) for y in lines for x in lines]
    assert values[-1] == selftest["score"] == max(values)
    assert [float(np.float32(value)) for value in values] == [*values]
    for one in maps[:, 0]:
        assert np.abs(one[rows, columns] - values).max() < 1e-4 * max(values)
        assert one.max() == pytest.approx(selftest["score"], rel=1e-4)


def test_device():
    """Left to the program it is the CPU, but for AIR, which needs another; a device that is named is that one."""

    def chosen(*flags):
        return export_entry.parse_args(["--ckpt_file", "a", "--category", "b", *flags]).device_target

    assert (chosen(), chosen("--file_format", "ONNX"), chosen("--file_format", "AIR")) == ("CPU", "CPU", "auto")
    assert chosen("--device_target", "Ascend") == "Ascend"


def test_evaluation(exported, trained, session_tree, tmp_path, capsys):
    """Six test images in batches of 8, of 4 (a padded last one) and of 1."""
    for model in (trained[0] / "widget/widget_last.ckpt", exported / "widget.mindir", exported / "widget.onnx"):
        flags = ("--eval_url", session_tree, "--category", "widget", "--out_dir", tmp_path / model.suffix)
        assert test_entry.main(test_entry.parse_args([str(word) for word in (*flags, "--ckpt_path", model)])) == 0
        assert "Total pixel-level auc-roc score :  " in capsys.readouterr().out
    expected = scores(tmp_path / ".ckpt")
    assert len(expected) == 6
    for suffix in (".mindir", ".onnx"):
        assert scores(tmp_path / suffix) == pytest.approx(expected, rel=1e-4)


@pytest.fixture
def checkpoint(trained):
    return trained[0] / "widget/widget_last.ckpt"


@pytest.fixture
def stand_in(tmp_path):
    """A checkpoint that is refused before anybody loads it."""
    path = tmp_path / "stand_in.ckpt"
    path.write_bytes(b"weights")
    sidecar.new_sidecar(category="widget", view=square(64), config=None).write(path)
    return path


def refused_export(refused, *flags):
    return refused(export_entry, "--category", "widget", *flags)


def test_air_needs_ascend(refused, stand_in, tmp_path):
    error = refused_export(refused, "--ckpt_file", stand_in, "--file_format", "AIR", "--out_dir", tmp_path / "o")
    assert "--file_format AIR: needs an Ascend device, and this is CPU; choose MINDIR or ONNX" in error
    assert not list((tmp_path / "o").iterdir())


def test_refused(refused, stand_in, tmp_path):
    out = ("--out_dir", tmp_path / "o")
    assert "invalid choice: 'onnx'" in refused_export(refused, "--ckpt_file", stand_in, "--file_format", "onnx")
    assert "no such checkpoint file" in refused_export(refused, "--ckpt_file", tmp_path / "none.ckpt", *out)
    assert "expected a MindSpore checkpoint" in refused_export(refused, "--ckpt_file", tmp_path, *out)
    error = refused(export_entry, "--ckpt_file", stand_in, "--category", "bottle", *out)
    assert "--category bottle:" in error
    assert "was trained on 'widget'" in error
    error = refused(export_entry, "--ckpt_file", stand_in, "--category", "../widget", *out)
    assert "--category: expected the name of a folder, got '../widget'" in error
    (tmp_path / "file").write_text("")
    error = refused_export(refused, "--ckpt_file", stand_in, "--out_dir", tmp_path / "file")
    assert "cannot be created as output folder" in error


def test_wrong_maps(refused, checkpoint, tmp_path, monkeypatch):
    """A model that computes others than its checkpoint is not kept."""
    monkeypatch.setattr(export_entry, "load_exported", lambda path: lambda images: images[:, :1] * 0)
    error = refused_export(refused, "--ckpt_file", checkpoint, "--out_dir", tmp_path / "o")
    assert "differ from the checkpoint's by 1.0e+00 (relative), more than 1e-04: it was not kept" in error
    assert not list((tmp_path / "o").iterdir())


def test_nan_maps():
    def nan(images):
        return np.full((1, 1, 4, 4), np.nan, np.float32)

    with pytest.raises(InputError, match="differ"):
        exporter.check_same_maps(nan, lambda images: np.ones((1, 1, 4, 4), np.float32), input_shape=(1, 3, 4, 4))


def test_relative_difference():
    """The largest difference in units of the reference's largest value, whatever their signs."""
    for found, reference, expected in (
        ([1.0, 2.0], [8.0, 4.0], 7 / 8),
        ([1.0, 2.0], [-8.0, 4.0], 9 / 8),
        ([-16.0, 4.0], [8.0, 4.0], 3.0),
        ([8.0, 4.0], [8.0, 4.0], 0.0),
    ):
        assert exporter.largest_relative_difference(np.array(found), np.array(reference)) == expected
    assert not np.isfinite(exporter.largest_relative_difference(np.array([np.nan, 1]), np.array([1, 1])))
    with pytest.raises(ValueError, match="shapes differ"):
        exporter.largest_relative_difference(np.zeros((1, 4, 4)), np.zeros((4, 4)))


def test_tolerance():
    """A ten-thousandth, as the project promises; a little less passes, a little more does not."""

    def times(factor):
        return lambda images: images[:, :1] * np.float32(factor)

    def compare(factor):
        return exporter.check_same_maps(times(factor), times(1), input_shape=(2, 3, 16, 16))

    assert compare(1 + 0.9e-4) == pytest.approx(0.9e-4, rel=0.01)
    with pytest.raises(InputError, match=r"differ from the checkpoint's by 1.1e-04 \(relative\), more than 1e-04"):
        compare(1 + 1.1e-4)


def test_onnx_without_its_runtime(refused, exported, session_tree, checkpoint, tmp_path, monkeypatch, caplog):
    for module in (model_file, export_entry):
        monkeypatch.setattr(module, "onnxruntime_is_installed", lambda: False)
    flags = ("--eval_url", session_tree, "--category", "widget", "--out_dir", tmp_path / "o")
    error = refused(test_entry, *flags, "--ckpt_path", exported / "widget.onnx")
    assert re.search(r"needs ONNX Runtime, which is not installed: pip install onnxruntime==\d[\d.]+$", error)
    args = ["--ckpt_file", checkpoint, "--category", "widget", "--file_format", "ONNX", "--out_dir", tmp_path / "x"]
    assert export_entry.main(export_entry.parse_args([str(arg) for arg in args])) == 0
    assert re.search(r"not verified: ONNX Runtime is not installed \(pip install onnxruntime==\d[\d.]+\)", caplog.text)
    assert read_export(tmp_path / "x/widget.onnx", category="widget")[1]["largest_relative_difference"] is None


@pytest.fixture
def copied(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def swap(path, old, new):
    path.write_text(path.read_text().replace(old, new))


def append_byte(path):
    path.write_bytes(path.read_bytes() + b"x")


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("widget.mindir", lambda d: (d / "widget.json").unlink(), "widget.json: is missing; export.py writes it"),
        ("widget.mindir", lambda d: edit(d / "widget.json", exports={}), "does not describe widget.mindir"),
        ("widget.mindir", lambda d: append_byte(d / "widget.mindir"), "widget.mindir: is damaged, or is not the file"),
        ("widget.onnx", lambda d: append_byte(d / "widget.onnx"), "widget.onnx: is damaged, or is not the file"),
        ("widget.mindir", lambda d: edit(d / "widget.json", category="nut"), "was trained on 'nut'"),
        ("widget.mindir", lambda d: edit(d / "widget.json", format=9), "format 9, this program reads format 1"),
        ("widget.mindir", lambda d: (d / "widget.json").write_text("{"), "widget.json: not valid JSON"),
        ("widget.mindir", lambda d: (d / "widget.mindir").write_bytes(b""), "is empty, not a MINDIR"),
        ("widget.onnx", lambda d: (d / "widget.onnx").unlink(), "no such ONNX file"),
        (
            "widget.onnx",
            lambda d: swap(d / "widget.json", 'batch_size": 1,', 'batch_size": 2,'),
            "widget.onnx: cannot compute the maps of images (2, 3, 64, 64)",
        ),
        (
            "widget.mindir",
            lambda d: swap(d / "widget.json", 'image_size": 64,', 'image_size": 96,'),
            "widget.mindir: cannot compute the maps of images (4, 3, 96, 96)",
        ),
        (
            "widget.onnx",
            lambda d: swap(d / "widget.json", 'image_size": 64,', 'image_size": 96,'),
            "widget.onnx: cannot compute the maps of images (1, 3, 96, 96)",
        ),
        ("widget.air", lambda d: None, "AIR is for Ascend tools only; expected .ckpt, .mindir or .onnx"),
    ],
)
def test_damaged_exports(refused, copied, session_tree, tmp_path, name, damage, message):
    damage(copied)
    flags = ("--eval_url", session_tree, "--category", "widget", "--out_dir", tmp_path / "o")
    assert message in refused(test_entry, *flags, "--ckpt_path", copied / name)
    assert not (tmp_path / "o/widget/results.json").exists()


def test_other_sizes(refused, exported, session_tree, tmp_path):
    flags = ("--eval_url", session_tree, "--category", "widget", "--ckpt_path", exported / "widget.mindir")
    assert "image_size 128: " in refused(test_entry, *flags, "--image_size", 128)
    error = refused(test_entry, *flags, "--eval_batch_size", 2)
    assert "was exported for 4; leave it out or export again" in error


@pytest.mark.parametrize("suffix", ["mindir", "onnx"])
def test_no_model(tmp_path, suffix):
    path = tmp_path / f"bad.{suffix}"
    path.write_bytes(b"no model at all" * 100)
    with pytest.raises(InputError, match=str(path)):
        model_file.load_exported(path)


def test_another_checkpoint(copied, checkpoint, tmp_path):
    """The JSON must not go on describing what came from another file."""
    other = tmp_path / "other.ckpt"
    shutil.copy(checkpoint, other)
    args = ["--ckpt_file", other, "--category", "widget", "--image_size", 64, "--out_dir", copied]
    assert export_entry.main(export_entry.parse_args([str(arg) for arg in args])) == 0
    content = json.loads((copied / "widget.json").read_text())
    assert set(content["exports"]) == {"widget.mindir"}
    assert content["config_hash"] is None  # nothing stood beside the checkpoint
    with pytest.raises(InputError, match=r"does not describe widget\.onnx"):
        read_export(copied / "widget.onnx", category="widget")


def test_exports_at_once(tmp_path):
    """Eight processes, each with a format of its own, of one checkpoint."""
    code = (
        "import sys, pathlib; from src.data.view import square\n"
        "from src.model.sidecar import new_sidecar, record_export\n"
        "path = pathlib.Path(sys.argv[1]); path.write_text('model')\n"
        "about = new_sidecar(category='widget', view=square(64), config=None)\n"
        "sys.stdin.readline()\n"
        "record_export(path, path, about, checkpoint={'file': 'widget.ckpt', 'sha256': '0'}, facts={'batch_size': 1})"
    )
    names = [f"widget.format{i}" for i in range(8)]
    ready = {"stdin": subprocess.PIPE, "cwd": ROOT, "text": True}
    running = [subprocess.Popen([sys.executable, "-c", code, tmp_path / name], **ready) for name in names]
    while not all((tmp_path / name).exists() for name in names):
        assert all(process.poll() is None for process in running)
    for process in running:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.wait() for process in running] == [0] * 8
    assert set(json.loads((tmp_path / "widget.json").read_text())["exports"]) == set(names)


def test_locked_folder(exported, trained, tmp_path, monkeypatch):
    """What another process writes to is left alone."""
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    shutil.copytree(trained[0] / "widget", tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(sidecar, "LOCK_PATIENCE", 0.0)
    before = contents(tmp_path)
    for name, lock in (("widget_last.ckpt", ".train.lock"), ("widget.mindir", ".widget.lock")):
        code = f"import pathlib, src.files; src.files.lock_folder(pathlib.Path({str(tmp_path)!r}), {lock!r})"
        command = [sys.executable, "-c", code + "; print('held', flush=True); input()"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as holder:
            assert holder.stdout.readline() == b"held\n"
            model = model_file.inspect_model(tmp_path / name)
            with pytest.raises(InputError, match=f"is in use by process {holder.pid} on "):
                sidecar.record_calibration(model.path, {"threshold": 0.5}, sha256=model.sha256)
    assert contents(tmp_path) == before


def test_later_threshold(tmp_path, caplog):
    """A model is exported, calibrated, exported to another format; then its checkpoint is calibrated, and so on."""
    caplog.set_level("INFO")

    def calibration(threshold, minute):
        return {
            "threshold": threshold,
            "calibration": {"threshold": threshold, "set_at": f"2026-01-01T00:{minute}:00Z"},
        }

    def export(suffix, threshold=None, minute=None, *, sha256="0"):
        path = tmp_path / f"widget.{suffix}"
        path.write_text("model")
        about = sidecar.new_sidecar(category="widget", view=square(64), config=None)
        about = replace(about, **calibration(threshold, minute)) if threshold else about
        checkpoint = {"file": "widget.ckpt", "sha256": sha256}
        sidecar.record_export(path, path, about, checkpoint=checkpoint, facts={"batch_size": 1})
        return read_export(path, category="widget")[0].threshold

    def calibrate_exported(threshold, minute):
        edit(tmp_path / "widget.json", **calibration(threshold, minute))

    assert export("mindir") is None
    calibrate_exported(0.5, "01")
    assert export("onnx") == 0.5  # the checkpoint has none
    assert "threshold 0.5: kept, since it was set on the exported model" in caplog.text
    assert export("onnx", 0.6, "02") == 0.6
    assert export("mindir", 0.6, "02") == 0.6
    calibrate_exported(0.7, "03")
    assert export("mindir", 0.6, "02") == 0.7
    assert json.loads((tmp_path / "widget.json").read_text())["calibration"]["set_at"] == "2026-01-01T00:03:00Z"
    assert export("onnx", 0.8, "04") == 0.8
    calibrate_exported(0.9, "05")
    assert export("mindir", 0.8, "04", sha256="1") == 0.8  # another checkpoint
    edit(tmp_path / "widget.json", threshold="0.9")
    with pytest.raises(InputError, match=r"widget.json: threshold '0.9', expected null or a number above 0"):
        export("mindir", sha256="1")
