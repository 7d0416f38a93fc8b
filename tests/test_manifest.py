"""preprocess.py and postprocess.py: what is which, and that nothing that does not belong together is scored."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

import postprocess
import preprocess
from src.data.arrays import decode_masks
from src.data.samples import list_test
from src.data.view import square
from src.evaluation.results import score_maps
from src.exchange.manifest import read_manifest, read_maps
from src.exchange.origin import file_checksum
from src.files import write_json
from tests.conftest import make_tree, read_csv, run_python, save_picture
from tests.plain_model import write_red_model

SIZE = 64


def prepare(data, folder, *flags):
    arguments = ["--data_dir", data, "--img_dir", folder, "--category", "widget", "--image_size", SIZE, *flags]
    return preprocess.main(preprocess.parse_args([str(argument) for argument in arguments]))


def write_maps(inputs, folder, rng):
    """Random maps, as the C++ program would write them; return them in the order of the manifest."""
    folder.mkdir()
    names = read_manifest(inputs).names
    maps = rng.random((len(names), SIZE, SIZE), np.float32)
    for name, one in zip(names, maps, strict=True):
        one.tofile(folder / f"{name}_0.bin")
    return maps


@pytest.fixture
def prepared(tree, tmp_path):
    """Data set, inputs and maps of a tiny category."""
    assert prepare(tree, tmp_path / "in") == 0
    write_maps(tmp_path / "in", tmp_path / "maps", np.random.default_rng(1))
    return tree, tmp_path / "in", tmp_path / "maps"


def score_flags(prepared, out):
    data, inputs, maps = prepared
    return ("--data_dir", data, "--label_dir", inputs, "--result_dir", maps, "--category", "widget", "--out_dir", out)


def test_inputs(tree, tmp_path):
    """What is in the files is what the network takes, by Pillow and numpy."""
    prepare(tree, tmp_path / "in")
    samples = list_test(tree, "widget")
    manifest = json.loads((tmp_path / "in/manifest.json").read_text())
    assert manifest["input"] == {"shape": [1, 3, SIZE, SIZE], "dtype": "float32"}
    assert manifest["output"] == {"shape": [1, 1, SIZE, SIZE], "dtype": "float32"}
    assert [image["name"] for image in manifest["images"]][:3] == ["00000_good_000", "00001_good_001", "00002_hole_000"]
    sha256 = hashlib.sha256((tmp_path / "in/00002_hole_000.bin").read_bytes()).hexdigest()
    assert manifest["images"][2] == {
        "name": "00002_hole_000",
        "source": "test/hole/000.png",
        "defect": "hole",
        "label": 1,
        "mask": "ground_truth/hole/000_mask.png",
        "sha256": sha256,
    }
    for image, sample in zip(manifest["images"], samples, strict=True):
        found = np.fromfile(tmp_path / f"in/{image['name']}.bin", np.float32).reshape(3, SIZE, SIZE)
        with Image.open(tree / "widget" / image["source"]) as picture:
            resized = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS), np.float64) / 255
        normalised = (resized - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        assert found == pytest.approx(normalised.transpose(2, 0, 1), abs=1e-6)
        assert sample.path == tree / "widget" / image["source"]
        assert image["label"] == (image["defect"] != "good")
        assert (image["mask"] is None) == (image["defect"] == "good")
    assert manifest["category"] == "widget"
    assert manifest["complete"] is True
    assert len(list((tmp_path / "in").iterdir())) == len(samples) + 1  # and no temporary file


@pytest.fixture
def model(tmp_path):
    """An exported model for images of ``SIZE``."""
    return write_red_model(tmp_path / "model", size=SIZE)


def test_image_size(refused, tree, model, tmp_path):
    """It comes from the model, where there is one."""
    flags = ["--data_dir", tree, "--img_dir", tmp_path / "in", "--category", "widget"]
    of_model = [str(flag) for flag in (*flags, "--mindir_path", model)]
    assert preprocess.main(preprocess.parse_args(of_model)) == 0
    assert read_manifest(tmp_path / "in").view == square(SIZE)
    assert preprocess.main(preprocess.parse_args([*of_model, "--check"])) == 0
    assert "was exported for 64" in refused(preprocess, *of_model, "--image_size", 32)
    assert "was made for images of 64 pixels, not 256" in refused(preprocess, *flags, "--check")  # 256: the default
    make_tree(tree, category="gizmo")
    flags = ("--data_dir", tree, "--img_dir", tmp_path / "in", "--category", "gizmo", "--mindir_path", model)
    assert "was trained on 'widget'" in refused(preprocess, *flags)


def test_flipped_bit(refused, tree, tmp_path):
    """Of the right size, but not what was written."""
    prepare(tree, tmp_path / "in")
    path = tmp_path / "in/00003_hole_001.bin"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    flags = ("--data_dir", tree, "--img_dir", tmp_path / "in", "--category", "widget", "--image_size", SIZE, "--check")
    assert "00003_hole_001.bin: is damaged, or preprocess.py did not write it" in refused(preprocess, *flags)


def test_leftovers(tree, tmp_path):
    """Its unfinished folder goes, and so do the inputs that its manifest names."""
    prepare(tree, tmp_path / "in")
    rewrite(tmp_path / "in", complete=False)
    (tmp_path / "in/.unfinished12345").mkdir()
    (tmp_path / "in/.unfinished12345/00000_good_000").write_bytes(b"half")
    assert prepare(tree, tmp_path / "in") == 0
    names = {f"{name}.bin" for name in read_manifest(tmp_path / "in").names}
    assert {path.name for path in (tmp_path / "in").iterdir()} == names | {"manifest.json"}


def test_second_call(tree, tmp_path):
    """It replaces what the first wrote."""
    prepare(tree, tmp_path / "in")
    (tree / "widget/test/hole/001.png").unlink()
    (tree / "widget/ground_truth/hole/001_mask.png").unlink()
    prepare(tree, tmp_path / "in")
    names = {path.name for path in (tmp_path / "in").glob("*.bin")}
    assert names == {f"{name}.bin" for name in read_manifest(tmp_path / "in").names}
    assert len(names) == 5


def test_foreign_files(refused, tree, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/precious.bin").write_text("mine")
    flags = ("--data_dir", tree, "--img_dir", tmp_path / "in", "--category", "widget")
    assert "precious.bin: was not written by preprocess.py; choose an empty folder" in refused(preprocess, *flags)
    assert (tmp_path / "in/precious.bin").read_text() == "mine"


def test_failed_call(refused, tree, tmp_path):
    """It is not taken for a whole one, and can be repeated."""
    picture = tree / "widget/test/hole/001.png"
    content = picture.read_bytes()
    picture.write_bytes(b"no picture")
    flags = ("--data_dir", tree, "--img_dir", tmp_path / "in", "--category", "widget")
    assert "hole/001.png: not a readable image" in refused(preprocess, *flags)
    assert not list((tmp_path / "in").iterdir())
    picture.write_bytes(content)
    assert prepare(tree, tmp_path / "in") == 0
    manifest = tmp_path / "in/manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole.replace('"complete": true', '"complete": false'))  # as a kill leaves it
    assert "did not finish; run it again" in refused(preprocess, *flags, "--check")
    assert prepare(tree, tmp_path / "in") == 0
    assert manifest.read_text() == whole
    assert prepare(tree, tmp_path / "in", "--check") == 0


def test_check(tree, tmp_path):
    prepare(tree, tmp_path / "in")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "in").iterdir()}
    assert prepare(tree, tmp_path / "in", "--check") == 0
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "in").iterdir()} == before


def add_image(data, inputs):
    save_picture(data / "widget/test/good/900.png", np.random.default_rng(9))


def change_image(data, inputs):
    """Another picture of the same size, as all uncompressed ones of a camera are."""
    path = data / "widget/test/good/000.png"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def rewrite(inputs, **changes):
    path = inputs / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data, inputs: shutil.rmtree(inputs), "manifest.json: is missing; preprocess.py writes it"),
        (add_image, "was made from other test images than the data set holds now"),
        (change_image, "was made from other test images than the data set holds now"),
        (lambda data, inputs: (inputs / "00002_hole_000.bin").unlink(), "00002_hole_000.bin: is missing"),
        (lambda data, inputs: (inputs / "x.bin").touch(), "x.bin: is not in the manifest"),
        (lambda data, inputs: (inputs / "00002_hole_000.bin").write_text("1"), "holds 1 bytes, expected 49152"),
        (lambda data, inputs: rewrite(inputs, category="nut"), "was made for category 'nut', not 'widget'"),
        (lambda data, inputs: rewrite(inputs, image_size=32), "was made for images of 32 pixels, not 64"),
        (lambda data, inputs: rewrite(inputs, images=[{}]), "manifest.json: is damaged"),
        (
            lambda data, inputs: rewrite(inputs, images=[{"name": "../x", "source": "", "label": 0, "sha256": ""}]),
            "'../x' is not a plain file name",
        ),
        (lambda data, inputs: (inputs / "manifest.json").write_text("[]"), "expected a JSON object"),
    ],
)
def test_refused_inputs(refused, prepared, damage, message):
    data, inputs, _ = prepared
    damage(data, inputs)
    flags = ("--data_dir", data, "--img_dir", inputs, "--category", "widget", "--image_size", SIZE, "--check")
    assert message in refused(preprocess, *flags)


def test_output_beside_pictures(tree, tmp_path):
    """The scripts write to a folder of the category's name in the current folder, which may be that of the pictures."""
    (tree / "widget/test/hole/widget/310_infer").mkdir(parents=True)
    assert prepare(tree / "widget/test/hole", tmp_path / "in") == 0
    assert read_manifest(tmp_path / "in").sources == ["000.png", "001.png"]


def test_results(prepared, tmp_path, capsys):
    maps = write_maps(prepared[1], tmp_path / "other", np.random.default_rng(2))
    arguments = score_flags((*prepared[:2], tmp_path / "other"), tmp_path / "out")
    assert postprocess.main(postprocess.parse_args([str(argument) for argument in arguments])) == 0
    samples = list_test(prepared[0], "widget")
    expected = score_maps(maps, decode_masks(samples, view=square(SIZE)), samples)
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert {key: results[key] for key in expected} == expected
    assert [entry["score"] for entry in results["scores"]] == [float(one.max()) for one in maps]
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "category:  widget",
        f"Total pixel-level auc-roc score :  {expected['pixel_auroc']!r}",
        f"Total image-level auc-roc score :  {expected['image_auroc']!r}",
    ]


def postprocess_to(out, prepared, *flags):
    words = (*score_flags(prepared, out), *flags)
    assert postprocess.main(postprocess.parse_args([str(word) for word in words])) == 0
    return json.loads((out / "results.json").read_text())


def test_flags(prepared, tmp_path, caplog):
    """Mask rule and threshold reach the results; a model's own threshold is used where none is given."""
    samples = list_test(prepared[0], "widget")
    masks, maps = decode_masks(samples, view=square(SIZE)), read_maps(prepared[2], read_manifest(prepared[1]))
    plain = postprocess_to(tmp_path / "out", prepared)
    assert (plain["decision"], plain["model"], plain["config_hash"]) == (None, None, None)
    results = postprocess_to(tmp_path / "out", prepared, "--mask_rule", "dilate")
    expected = roc_auc_score((masks > 0).ravel(), maps.ravel())
    assert results["pixel_auroc"] == pytest.approx(expected, rel=1e-12)
    assert results["pixel_auroc"] != plain["pixel_auroc"]
    scores = maps.max((1, 2))
    middle = float(np.sort(scores)[3])
    model = write_red_model(tmp_path / "model", size=SIZE, threshold=middle)
    for flags, source in (
        (("--threshold", repr(middle)), "--threshold"),
        (("--mindir_path", model), "the model, set by good images"),
        (("--mindir_path", write_red_model(tmp_path / "b", size=SIZE, threshold=0.1), "--threshold", middle), "--thr"),
    ):
        results = postprocess_to(tmp_path / "out", prepared, *flags)
        assert [entry["verdict"] == "defective" for entry in results["scores"]] == (scores >= middle).tolist()
        assert results["decision"]["threshold"] == middle
        assert results["threshold_source"].startswith(source)
    assert results["model"] == "widget.onnx"
    assert results["config_hash"] is not None


def test_unlabelled_scores(refused, tree, tmp_path, capsys):
    """Scores, verdicts and times of pictures without labels; the times are paired by name, not by order."""
    pictures = tree / "widget/test/hole"
    assert prepare(pictures, tmp_path / "in") == 0
    manifest = read_manifest(tmp_path / "in")
    assert manifest.names == ["00000_unlabelled_000", "00001_unlabelled_001"]
    maps = write_maps(tmp_path / "in", tmp_path / "maps", np.random.default_rng(3))
    times = "input,milliseconds\n00001_unlabelled_001.bin,2.5\n00000_unlabelled_000.bin,1.25\n"
    (tmp_path / "maps/scores.csv").write_text(times)
    scene = (pictures, tmp_path / "in", tmp_path / "maps")
    scores = maps.max((1, 2)).tolist()
    words = score_flags(scene, tmp_path / "out")
    for flags, verdicts, said in (
        ((), ["", ""], "2 images, no threshold, no verdicts: "),
        (
            ("--threshold", repr(max(scores))),
            ["defective" if score == max(scores) else "good" for score in scores],
            "2 images, 1 good, 1 defective: ",
        ),
        (("--threshold", 0.001), ["defective"] * 2, "2 images, 0 good, 2 defective: "),
    ):
        assert postprocess.main(postprocess.parse_args([str(word) for word in (*words, *flags)])) == 0
        assert capsys.readouterr().out.splitlines()[-1] == f"{said}{tmp_path / 'out/scores.csv'}"
        rows = read_csv(tmp_path / "out/scores.csv")
        assert [row["source"] for row in rows] == ["000.png", "001.png"]
        assert [float(row["score"]) for row in rows] == scores
        assert [row["verdict"] for row in rows] == verdicts
        assert [float(row["milliseconds"]) for row in rows] == [1.25, 2.5]
    for text in (times.replace("001.bin", "002.bin"), times.replace("2.5", "nan"), "input\n00000_unlabelled_000.bin\n"):
        (tmp_path / "maps/scores.csv").write_text(text)
        assert "scores.csv: does not match the manifest" in refused(postprocess, *words)


def test_size_of_maps(refused, tree, tmp_path):
    """The size that the zoo's postprocess.py is told may be told, and must be the one that there is."""
    pictures = tree / "widget/test/hole"
    assert prepare(pictures, tmp_path / "in") == 0
    size = read_manifest(tmp_path / "in").view.size
    write_maps(tmp_path / "in", tmp_path / "maps", np.random.default_rng(3))
    (tmp_path / "maps/scores.csv").write_text(
        "input,milliseconds\n" + "".join(f"{name}.bin,1\n" for name in read_manifest(tmp_path / "in").names)
    )
    words = score_flags((pictures, tmp_path / "in", tmp_path / "maps"), tmp_path / "out")
    error = refused(postprocess, *words, "--out_size", 512)
    assert f"--image_size 512: the inputs in {tmp_path / 'in'} are of {size} pixels; leave the flag out" in error
    assert not (tmp_path / "out/scores.csv").exists()
    assert postprocess.main(postprocess.parse_args([str(word) for word in (*words, "--out_size", size)])) == 0


def test_mark(tmp_path):
    """The check value in the definition of CRC-32, that of the digits 1 to 9."""
    (tmp_path / "digits").write_bytes(b"123456789")
    assert file_checksum(tmp_path / "digits") == {"bytes": 9, "crc32": 0xCBF43926}


def test_without_mindspore(prepared, tmp_path):
    code = "import sys; sys.modules['mindspore'] = None; import runpy; sys.argv[0] = 'postprocess.py'; "
    code += "runpy.run_module('postprocess', run_name='__main__')"
    done = run_python("-c", code, *score_flags(prepared, tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "Total image-level auc-roc score :  " in done.stdout


def put_nan(maps):
    array = np.zeros((SIZE, SIZE), np.float32)
    array[3, 4] = np.nan
    array.tofile(maps / "00003_hole_001_0.bin")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda maps: shutil.rmtree(maps), "maps: no such folder"),
        (lambda maps: (maps / "00003_hole_001_0.bin").unlink(), "00003_hole_001_0.bin: is missing"),
        (lambda maps: (maps / "00009_hole_001_0.bin").touch(), "00009_hole_001_0.bin: is not in the manifest"),
        (lambda maps: (maps / "00003_hole_001_0.bin").write_text("12"), "holds 2 bytes, expected 16384 (float32)"),
        (put_nan, "00003_hole_001_0.bin: the map holds NaN or infinity"),
    ],
)
def test_refused_maps(refused, prepared, tmp_path, damage, message):
    damage(prepared[2])
    assert message in refused(postprocess, *score_flags(prepared, tmp_path / "out"))
    assert not (tmp_path / "out/results.json").exists()


@pytest.fixture
def noted(prepared, model):
    """``prepared``, with the inference program's note that these maps are of these inputs and of the model."""
    _, inputs, maps = prepared
    origin = {"manifest": file_checksum(inputs / "manifest.json"), "model": file_checksum(model)}
    write_json(maps / "origin.json", {"format": 1} | origin)
    return prepared


def test_origin(noted, model, tmp_path, caplog):
    """Without a word; those without a note with a warning."""
    postprocess_to(tmp_path / "out", noted, "--mindir_path", model)
    assert "it is not checked" not in caplog.text
    (noted[2] / "origin.json").unlink()
    postprocess_to(tmp_path / "out", noted, "--mindir_path", model)
    assert "origin.json, so it is not checked that the maps are of these inputs and of this model" in caplog.text


def test_origin_of_earlier_inputs(refused, noted, tmp_path):
    """Their names and sizes are right, and the data set is that of the inputs: only the note tells."""
    good = noted[0] / "widget/test/good"
    shutil.copy(good / "001.png", good / "000.png")
    assert prepare(*noted[:2]) == 0
    assert "maps are not of the inputs that" in refused(postprocess, *score_flags(noted, tmp_path / "out"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"bytes": 1, "crc32": 1}}, "maps are not of the model"),
        ({"manifest": None}, "maps are not of the inputs that"),
        ({"format": 2}, "format 2, this program reads format 1"),
    ],
)
def test_refused_origin(refused, noted, model, tmp_path, changes, message):
    path = noted[2] / "origin.json"
    write_json(path, json.loads(path.read_text()) | changes)
    flags = (*score_flags(noted, tmp_path / "out"), "--mindir_path", model)
    assert message in refused(postprocess, *flags)


def test_model_of_another_size(refused, tree, model, tmp_path):
    assert prepare(tree, tmp_path / "in", "--image_size", 32) == 0
    (tmp_path / "maps").mkdir()
    flags = score_flags((tree, tmp_path / "in", tmp_path / "maps"), tmp_path / "out")
    flags = (*flags, "--mindir_path", model)
    assert "widget.onnx was exported for 64" in refused(postprocess, *flags)


def test_another_data_set(refused, prepared, tmp_path):
    other = make_tree(tmp_path / "other", per_defect=3)
    error = refused(postprocess, *score_flags((other, *prepared[1:]), tmp_path / "out"))
    assert "was made from other test images" in error
    make_tree(prepared[0], category="gizmo")
    arguments = ["gizmo" if word == "widget" else word for word in score_flags(prepared, tmp_path / "out")]
    assert "was made for category 'widget', not 'gizmo'" in refused(postprocess, *arguments)


@pytest.mark.parametrize("kind", ["labelled", "new"])
def test_former_manifest(tree, tmp_path, caplog, kind):
    """Inputs by releases that left the order of passes to Pillow are accepted; of a tall image, one warning tells."""
    data = tree if kind == "labelled" else tree / "widget/test/hole"
    for is_tall in (False, True):
        if is_tall:
            tall = np.random.default_rng(0).integers(0, 255, (400, 90, 3), np.uint8)
            Image.fromarray(tall).save(tree / "widget/test/hole/000.png")
            Image.fromarray(np.full((400, 90), 255, np.uint8)).save(tree / "widget/ground_truth/hole/000_mask.png")
        assert prepare(data, tmp_path / "in") == 0
        content = json.loads((tmp_path / "in/manifest.json").read_text())
        assert content["preprocessing"].pop("resize_passes") == ["width", "height"]
        write_json(tmp_path / "in/manifest.json", content)
        caplog.clear()
        assert prepare(data, tmp_path / "in", "--check") == 0
        warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
        assert [("manifest.json: was made by a release that" in text) for text in warnings] == [True] * is_tall
