"""The JSON beside a model: which file it describes, whose threshold it holds, and what is refused."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import train
from src.data import images
from src.data.images import MEAN, STD
from src.data.view import ImageSize, square
from src.model import sidecar
from src.model.model_file import inspect_model
from src.model.record import TrainingFolder
from src.model.sidecar import check_checkpoint, new_sidecar, read_sidecar, record_calibration, record_export
from src.utils import InputError
from tests.conftest import load_image, result_or_error
from tests.plain_model import write_red_model

SELFTEST = {"input": "pattern-1", "image_size": 32, "score": 0.5, "map": [[31, 0, 0.25], [7, 7, 0.5]]}


def read(path):
    return json.loads(path.with_suffix(".json").read_text())


def change(path, **changes):
    path.with_suffix(".json").write_text(json.dumps(read(path) | changes))


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def model(tmp_path):
    """An exported model without a threshold."""
    return write_red_model(tmp_path)


@pytest.fixture
def checkpoint(tmp_path):
    """What stands for a checkpoint, with a JSON that describes it and the one of the epoch before."""
    path = tmp_path / "widget_last.ckpt"
    path.write_bytes(b"this epoch's")
    about = new_sidecar(category="widget", view=square(64), config={"lr": 0.4})
    written = {"file": path.name, "sha256": sha256(b"this epoch's"), "replaces": sha256(b"the one before")}
    replace(about, checkpoint=written).write(path)
    return path


def test_content():
    """ImageNet's constants as torchvision gives them, and a hash that depends on values, not on their order."""
    content = new_sidecar(category="widget", view=square(64), config={"a": 1, "b": 2}).to_json()
    assert content["preprocessing"] == {
        "colour": "RGB",
        "resize": "LANCZOS",
        "resize_passes": ["width", "height"],
        "scale": 1 / 255,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "layout": "NCHW",
        "dtype": "float32",
    }
    assert content["preprocessing"]["mean"] == pytest.approx(MEAN.tolist())
    assert content["preprocessing"]["std"] == pytest.approx(STD.tolist())
    assert (content["format"], content["category"], content["image_size"]) == (1, "widget", 64)
    assert content["threshold"] is None
    others = [new_sidecar(category="widget", view=square(64), config=one) for one in ({"b": 2, "a": 1}, {"a": 1})]
    assert [content["config_hash"] == other.config_hash for other in others] == [True, False]
    assert content["config_hash"] == hashlib.sha256(b'{"a": 1, "b": 2}').hexdigest()
    assert new_sidecar(category="widget", view=square(64), config=None).config_hash is None
    assert not content.keys() & {"checkpoint", "calibration", "exports"}


def test_command_line(refused, model, capsys):
    """The script's check: it prints the threshold, nothing where there is none, and refuses what does not belong."""
    flags = ["--mindir_path", str(model), "--category", "widget"]
    assert sidecar.main(sidecar.parse_args(flags)) == 0
    assert capsys.readouterr().out == ""
    change(model, threshold=0.125)
    assert sidecar.main(sidecar.parse_args(flags)) == 0
    assert capsys.readouterr().out == "0.125\n"
    assert "was trained on 'widget'" in refused(sidecar, *flags[:3], "nut")
    model.write_bytes(model.read_bytes()[:-1])
    assert "is damaged, or is not the file that widget.json describes" in refused(sidecar, *flags)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2, this program reads format 1"),
        ({"image_size": 40}, "image_size 40, expected a multiple of 16"),
        ({"preprocessing": sidecar.PREPROCESSING | {"resize": "BILINEAR"}}, "preprocessing {"),
        ({"threshold": 0}, "threshold 0, expected null or a number above 0"),
        ({"threshold": True}, "threshold True, expected"),
        ({"threshold": "1"}, "threshold '1', expected"),
        ({"threshold": 1e39}, "threshold 1e+39, expected"),
        ({"config_hash": 1}, "config_hash 1, expected null or a string"),
        ({"category": None}, "category None, expected a string"),
        ({"config": "lr"}, "config 'lr', expected null or an object"),
        ({"versions": None}, "versions None, expected an object"),
        ({"calibration": 0.5}, "calibration 0.5, expected null or an object"),
        ({"exports": []}, "exports [], expected an object"),
        ({"exports": {}}, "does not describe widget.onnx; export it again"),
        ({"selftest": []}, "selftest [], expected an object that names its input; export it again"),
        ({"selftest": SELFTEST | {"input": 1}}, "expected an object that names its input; export it again"),
        ({"selftest": SELFTEST | {"image_size": 64}}, "selftest: image_size 64, and the model's is 32; export it"),
        ({"selftest": SELFTEST | {"score": "0.5"}}, "selftest: score '0.5', expected a number; export it again"),
        ({"selftest": SELFTEST | {"score": True}}, "selftest: score True, expected a number"),
        ({"selftest": SELFTEST | {"score": 1e39}}, "selftest: score 1e+39, expected a number"),
        ({"selftest": {**SELFTEST, "map": []}}, "selftest: map, expected a list of [row, column, value]; export it"),
        ({"selftest": {**SELFTEST, "map": [[0, 0]]}}, "selftest: map, expected a list"),
        ({"selftest": {**SELFTEST, "map": [[0, 0, "1"]]}}, "selftest: map, expected a list"),
        ({"selftest": {**SELFTEST, "map": [[0, 32, 0.5]]}}, "selftest: map, expected a list"),
        ({"selftest": {**SELFTEST, "map": [[0.5, 0, 0.5]]}}, "selftest: map, expected a list"),
        ({"selftest": {**SELFTEST, "map": [[-1, 0, 0.5]]}}, "selftest: map, expected a list"),
    ],
)
def test_refused(refused, model, changes, message):
    change(model, **changes)
    assert message in refused(sidecar, "--mindir_path", model, "--category", "widget")


@pytest.mark.parametrize("batch_size", [0, 1.5, None])
def test_refused_batch_size(refused, model, batch_size):
    exports = read(model)["exports"]
    exports["widget.onnx"]["batch_size"] = batch_size
    change(model, exports=exports)
    error = refused(sidecar, "--mindir_path", model, "--category", "widget")
    assert f"batch_size {batch_size!r}, expected a whole number of at least 1" in error


def test_checkpoint(checkpoint):
    """The one described, or the one that it was about to replace when the training was killed; no other."""
    about = read_sidecar(checkpoint, category="widget")
    for content in (b"this epoch's", b"the one before"):
        checkpoint.write_bytes(content)
        assert check_checkpoint(checkpoint, about) == sha256(content)
    checkpoint.write_bytes(b"another")
    for unknown in (
        about.checkpoint,
        {"sha256": "0"},
        {"sha256": "0", "replaces": "1"},
        {"replaces": None},
        {},
        "text",
    ):
        change(checkpoint, checkpoint=unknown)
        with pytest.raises(InputError, match=r"is not the checkpoint that widget_last.json describes"):
            check_checkpoint(checkpoint, read_sidecar(checkpoint, category="widget"))
    change(checkpoint, checkpoint=None)
    assert check_checkpoint(checkpoint, read_sidecar(checkpoint, category="widget")) == sha256(b"another")


@pytest.mark.parametrize("content", [b"this epoch's", b"the one before"])
def test_calibration_of_checkpoint(checkpoint, content):
    """The threshold is this file's alone: no other is described any longer."""
    before = read(checkpoint)
    checkpoint.write_bytes(content)
    record_calibration(checkpoint, {"threshold": 0.5, "images": 3}, sha256=sha256(content))
    after = read(checkpoint)
    calibration = after.pop("calibration")
    assert calibration.pop("set_at").endswith("Z")
    assert calibration == {"threshold": 0.5, "images": 3}
    assert after["checkpoint"] == {"file": "widget_last.ckpt", "sha256": sha256(content)}
    assert after == before | {"threshold": 0.5, "checkpoint": after["checkpoint"]}


def test_unknown_fields(checkpoint):
    """What somebody wrote into the file stays there."""
    change(checkpoint, line=3, operator="Ada")
    record_calibration(checkpoint, {"threshold": 0.5}, sha256=sha256(b"this epoch's"))
    after = read(checkpoint)
    assert (after["line"], after["operator"], after["threshold"]) == (3, "Ada", 0.5)


def test_calibration_of_replaced_model(checkpoint, model):
    """While its threshold was measured, the file became another."""
    for path in (checkpoint, model):
        before = read(path)
        with pytest.raises(InputError, match="was replaced while its threshold was measured; calibrate it again"):
            record_calibration(path, {"threshold": 0.5}, sha256=sha256(b"the one before"))
        assert read(path) == before


def test_other_image_size(caplog):
    """A threshold means nothing at another size; the warning says so, and only where there was one."""
    about = new_sidecar(category="widget", view=square(64), config=None)
    assert about.at_image_size(ImageSize(32, 32)) == replace(about, view=square(32))
    assert not caplog.records
    calibrated = replace(about, threshold=0.5, calibration={"threshold": 0.5})
    assert calibrated.at_image_size(ImageSize(64, 64)) == calibrated
    assert not caplog.records
    assert calibrated.at_image_size(ImageSize(32, 32)) == replace(about, view=square(32))
    assert "--image_size 32: without a threshold, since the checkpoint's was set at 64 pixels" in caplog.text


def test_exports(tmp_path):
    """One file describes all formats of one checkpoint at one image size, and those of another no longer."""

    def export(suffix, *, origin="0", size=64, batch_size=1):
        path = tmp_path / f"widget.{suffix}"
        path.write_text(suffix)
        about = new_sidecar(category="widget", view=square(size), config=None)
        checkpoint = {"file": "widget.ckpt", "sha256": origin}
        record_export(path, path, about, checkpoint=checkpoint, facts={"batch_size": batch_size})
        return read(path)

    assert set(export("mindir", batch_size=4)["exports"]) == {"widget.mindir"}
    both = export("onnx")
    assert both["exports"] == {
        "widget.mindir": {"sha256": sha256(b"mindir"), "batch_size": 4},
        "widget.onnx": {"sha256": sha256(b"onnx"), "batch_size": 1},
    }
    for name, batch_size in (("widget.mindir", 4), ("widget.onnx", 1)):
        model = inspect_model(tmp_path / name, category="widget")
        assert (model.view, model.batch_size, model.sha256) == (square(64), batch_size, sha256(name[7:].encode()))
    assert both["checkpoint"] == {"file": "widget.ckpt", "sha256": "0"}
    assert set(export("mindir", size=32)["exports"]) == {"widget.mindir"}
    assert set(export("onnx", size=32)["exports"]) == {"widget.mindir", "widget.onnx"}
    assert set(export("onnx", size=32, origin="1")["exports"]) == {"widget.onnx"}
    with pytest.raises(InputError, match=r"widget\.json: does not describe widget\.mindir; export it again"):
        inspect_model(tmp_path / "widget.mindir")


def test_selftest(tmp_path):
    """It stays through a calibration, and where another format is exported without; not for another checkpoint."""

    def export(suffix, *, origin="0", size=32, selftest=None):
        path = tmp_path / f"widget.{suffix}"
        path.write_text(suffix)
        about = replace(new_sidecar(category="widget", view=square(size), config=None), selftest=selftest)
        record_export(path, path, about, checkpoint={"file": "a.ckpt", "sha256": origin}, facts={"batch_size": 1})
        return read(path).get("selftest")

    assert export("mindir") is None
    assert export("mindir", selftest=SELFTEST) == SELFTEST
    assert read_sidecar(tmp_path / "widget.mindir", category="widget").selftest == SELFTEST
    record_calibration(tmp_path / "widget.mindir", {"threshold": 0.5}, sha256=sha256(b"mindir"))
    assert read(tmp_path / "widget.mindir")["selftest"] == SELFTEST
    assert export("air") == SELFTEST
    assert export("air", selftest=SELFTEST | {"score": 0.75})["score"] == 0.75
    assert export("air", origin="1") is None
    assert export("air", origin="1", selftest=SELFTEST) == SELFTEST
    assert export("air", origin="1", size=64) is None


def test_no_sidecar(tmp_path):
    """Of a checkpoint there may be none; a link that leads nowhere is not none."""
    path = tmp_path / "widget_last.ckpt"
    path.write_bytes(b"weights")
    assert sidecar.read_sidecar(path, category="widget") is None
    path.with_suffix(".json").symlink_to(tmp_path / "nowhere.json")
    assert isinstance(result_or_error(sidecar.read_sidecar, path, category="widget"), InputError)


def test_former_preprocessing(model, caplog):
    """Models by releases that left the order of passes to Pillow are accepted, and stay known as such."""
    change(model, preprocessing={name: value for name, value in sidecar.PREPROCESSING.items() if "passes" not in name})
    about = inspect_model(model).sidecar
    about.write(model)
    assert "resize_passes" not in read(model)["preprocessing"]
    assert not caplog.records
    picture = model.parent / "tall.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (400, 90), np.uint8)).save(picture)
    for _ in range(2):
        load_image(picture, 64)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "widget.json" in caplog.text or str(model) in caplog.text


def test_former_training(tmp_path):
    """So are those of a training that is resumed; one whose JSON is missing or damaged is none of this one's affair."""
    folder = TrainingFolder(tmp_path, "widget")
    train.note_resumed_preprocessing(folder)
    new_sidecar(category="widget", view=square(64), config=None).write(folder.checkpoint)
    train.note_resumed_preprocessing(folder)
    assert not images._FORMER
    content = read(folder.checkpoint)
    del content["preprocessing"]["resize_passes"]
    change(folder.checkpoint, **content)
    train.note_resumed_preprocessing(folder)
    assert [folder.checkpoint] == images._FORMER
