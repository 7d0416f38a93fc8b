"""What stands beside a model and beside its maps: which file is whose, and what of it is in force."""

import hashlib
import json
import zlib
from dataclasses import replace

import numpy as np
import pytest

from src.data.view import ImageSize, square
from src.evaluation.decision import DecisionRule
from src.exchange.origin import check_origin
from src.files import write_json
from src.model import model_file
from src.model.model_file import choose_rule, inspect_model
from src.model.sidecar import (
    new_sidecar,
    read_export,
    record_export,
)
from src.utils import InputError


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def checkpoint(tmp_path):
    """A file that is called a checkpoint, and its sidecar."""
    path = tmp_path / "m.ckpt"
    path.write_bytes(b"weights")
    about = new_sidecar(category="nut", view=square(96), config={"lr": 0.1})
    replace(about, checkpoint={"file": "m.ckpt", "sha256": sha256(path)}).write(path)
    return path


def change(path, **changes):
    write_json(path, json.loads(path.read_text()) | changes)


def test_checkpoint(checkpoint):
    model = inspect_model(checkpoint, category="nut")
    assert (model.view, model.batch_size, model.threshold) == (square(96), 8, None)
    assert model.sha256 == sha256(checkpoint)
    assert model.config_hash == hashlib.sha256(b'{"lr": 0.1}').hexdigest()
    model = inspect_model(checkpoint, image_size=ImageSize(64, 64), batch_size=3)
    assert (model.view, model.batch_size) == (square(64), 3)
    with pytest.raises(InputError, match=r"^--category bolt: .*m\.ckpt was trained on 'nut' \(by m\.json\)"):
        inspect_model(checkpoint, category="bolt")


def test_checkpoint_alone(checkpoint, caplog):
    """Without a sidecar it is taken as it is, at 256 pixels and with a warning, or at the size that is asked for."""
    checkpoint.with_suffix(".json").unlink()
    model = inspect_model(checkpoint, category="any", image_size=ImageSize(64, 64))
    assert (model.sidecar, model.view, model.threshold, model.config_hash) == (None, square(64), None, None)
    assert "pixels" not in caplog.text
    assert inspect_model(checkpoint).view == square(256)
    assert "m.json, so 256 pixels are assumed" in caplog.text


def export(path, about, *, origin="0", **facts):
    path.write_text(path.name)
    record_export(path, path, about, checkpoint={"file": "m.ckpt", "sha256": origin}, facts={"batch_size": 1} | facts)


@pytest.mark.parametrize(
    ("exported_at", "checkpoint_at", "expected"),
    [("02", None, 0.5), ("02", "01", 0.5), ("02", "02", 0.6), ("02", "03", 0.6), (None, "01", 0.6), (None, None, None)],
)
def test_later_threshold(tmp_path, exported_at, checkpoint_at, expected):
    """An export keeps the threshold that was set on an exported model where the checkpoint's is not a later one."""

    def calibrated(threshold, second):
        return {"threshold": threshold, "calibration": {"threshold": threshold, "set_at": second}} if second else {}

    about = new_sidecar(category="nut", view=square(96), config=None)
    export(tmp_path / "m.onnx", about)
    change(tmp_path / "m.json", **calibrated(0.5, exported_at))
    export(tmp_path / "m.mindir", replace(about, **calibrated(0.6, checkpoint_at)))
    about, _ = read_export(tmp_path / "m.mindir", category="nut")
    assert about.threshold == expected
    assert (about.calibration or {}).get("threshold") == expected


@pytest.mark.parametrize(
    ("sizes", "flag"),
    [({"image_size": ImageSize(64, 64)}, "image_size 64"), ({"batch_size": 2}, "batch_size 2")],
)
def test_exported_for(tmp_path, sizes, flag):
    """An exported model has one image size and one batch size; asked for by number they are no error."""
    export(tmp_path / "m.onnx", new_sidecar(category="nut", view=square(96), config=None), batch_size=4)
    assert inspect_model(tmp_path / "m.onnx", image_size=ImageSize(96, 96), batch_size=4).batch_size == 4
    with pytest.raises(InputError, match=f"^{flag}: .* was exported for"):
        inspect_model(tmp_path / "m.onnx", **sizes)


def test_other_models(tmp_path):
    (tmp_path / "m.air").write_text("x")
    with pytest.raises(InputError, match=r"m\.air: AIR is for Ascend tools only; expected \.ckpt, \.mindir or \.onnx"):
        inspect_model(tmp_path / "m.air")


def test_threshold_in_force(checkpoint, caplog):
    """The flag's, else the model's own at its own image size, as the nearest float32 number; 0 is none."""
    change(checkpoint.with_suffix(".json"), threshold=0.1)
    model = inspect_model(checkpoint)
    assert choose_rule(model) == DecisionRule(0.10000000149011612, source="the model, set by good images")
    assert choose_rule(model, threshold=0.3) == DecisionRule(0.30000001192092896, source="--threshold")
    assert choose_rule(None, threshold=0.3).threshold == 0.30000001192092896
    assert choose_rule(None).threshold is None
    assert not caplog.text
    assert choose_rule(inspect_model(checkpoint, image_size=ImageSize(64, 64))).threshold is None
    assert "was set at 96 pixels, not 64" in caplog.text
    with pytest.raises(InputError, match=r"--threshold 1e-46: is below 1\.1754944e-38"):
        choose_rule(model, threshold=1e-46)
    change(checkpoint.with_suffix(".json"), threshold=1e-46)
    with pytest.raises(InputError, match=r"m\.json: threshold 1e-46: is below 1.1754944e-38"):
        choose_rule(inspect_model(checkpoint))


MAPS = np.ones((1, 1, 96, 96), np.float32)  # of one image


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        (MAPS, None),
        (MAPS[:, 0], r"computes maps \(1, 96, 96\) of images \(1, 3, 96, 96\); export it again"),
        (MAPS[..., :64], r"computes maps \(1, 1, 96, 64\) of images"),
        (RuntimeError("of the runtime\nmore"), r"cannot compute the maps of images \(1, 3, 96, 96\): of the runtime$"),
    ],
    ids=["good", "flat", "narrow", "error"],
)
def test_maps(tmp_path, monkeypatch, maps, words):
    """What a runtime computes is looked at before anything is made of it."""

    def compute(images):
        if isinstance(maps, Exception):
            raise maps
        return maps

    export(tmp_path / "m.onnx", new_sidecar(category="nut", view=square(96), config=None))
    monkeypatch.setattr(model_file, "load_exported", lambda path, **_: compute)
    map_function = model_file.load_network(inspect_model(tmp_path / "m.onnx"))
    images = np.zeros((1, 3, 96, 96), np.float32)
    if words is None:
        assert np.array_equal(map_function(images), maps)
        return
    with pytest.raises(InputError, match=rf"m\.onnx: {words}"):
        map_function(images)


# --- where maps come from --------------------------------------------------------------------------------------------


def mark(content):
    return {"bytes": len(content), "crc32": zlib.crc32(content)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"format": 2}, "format 2, this program reads format 1"),
        ({"manifest": mark(b"other")}, "the maps are not of the inputs that .* holds now; run the inference again"),
        ({"manifest": mark(b"manifest") | {"bytes": 9}}, "the maps are not of the inputs"),
        ({"manifest": None}, "the maps are not of the inputs"),
        ({"model": mark(b"mode1")}, r"the maps are not of the model .*m\.mindir; run the inference again, with it"),
    ],
)
def test_origin(tmp_path, caplog, changes, words):
    """A note of other inputs, or of another model than the one that is named, is refused."""
    (tmp_path / "manifest.json").write_bytes(b"manifest")
    model = tmp_path / "m.mindir"
    model.write_bytes(b"model")
    note = {"format": 1, "manifest": mark(b"manifest"), "model": mark(b"model")}
    write_json(tmp_path / "origin.json", note | changes)
    if words:
        with pytest.raises(InputError, match=words):
            check_origin(tmp_path, tmp_path, model)
    else:
        check_origin(tmp_path, tmp_path, model)
    if not words or "model" in changes:
        check_origin(tmp_path, tmp_path, None)
    assert not caplog.text


def test_no_origin(tmp_path, caplog):
    """Maps of another program have no note: they are taken, with a warning."""
    check_origin(tmp_path, tmp_path, None)
    assert "origin.json, so it is not checked that the maps are of these inputs and of this model" in caplog.text
