"""One category with everything that goes wrong easily, through every program, against Pillow and scikit-learn.

Its pictures are called 1, 2 and 10, one of them is turned by EXIF, masks have edges between pixels, and names hold what
HTML, CSV and JSON write differently. The model's map is the red channel, so that all that is computed from it is known.
"""

import json
from urllib.parse import unquote

import mindspore as ms
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from sklearn.metrics import roc_auc_score

import export
import postprocess
import preprocess
import test as test_entry
import train
from src import dataset, predict
from src.data.arrays import decode_masks
from src.data.images import MASK_RULES, binary_mask
from src.data.samples import list_test
from src.data.view import square
from src.model.export import write_model
from src.model.sidecar import new_sidecar, record_export
from src.report import page as report
from tests.conftest import read_csv, train_arguments
from tests.test_report import Page, decoded

CATEGORY = 'wid"get <i>&amp;'
ODD, PLAIN = 'a"  onload="x" <b>&lt;', "crack"  # with two spaces
MODEL = 'm "<u>&gt;.onnx'
SIZE = 64  # of the model; pictures are 64 wide and 128 high
THRESHOLD = 0.8
# left, upper, right, lower: white ones begin and end at whole pixels of the resized picture, masks begin between two
SPOTS = {1: (4, 20, 14, 50), 2: (30, 80, 60, 90), 10: (20, 2, 25, 120)}
MASKS = {1: (4, 21, 20, 52), 2: (30, 71, 61, 90), 10: (18, 1, 28, 126)}


def area_of(box):
    inside = np.zeros((128, 64), bool)
    left, upper, right, lower = box
    inside[upper:lower, left:right] = True
    return inside


def save_noise(path, rng, spot=None, *, orientation=1):
    """Write noise that is far below the threshold, with a white rectangle where upright it shall be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 120, (128, 64, 3), np.uint8)
    if spot:
        pixels[area_of(spot)] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    # 6: turn by 90 degrees clockwise to show
    Image.fromarray(np.rot90(pixels).copy() if orientation == 6 else pixels).save(path, exif=exif)


class Red(ms.nn.Cell):
    """Normalised images to their red channel, 0 to 1."""

    def construct(self, images):
        return images[:, :1] * 0.229 + 0.485


@pytest.fixture(scope="module")
def odd(tmp_path_factory, device):
    """The root of the category, and a model for it."""
    root = tmp_path_factory.mktemp("odd")
    rng = np.random.default_rng(4)
    folder = root / CATEGORY
    for i in SPOTS:
        save_noise(folder / f"train/good/{i}.png", rng)
        save_noise(folder / f"test/good/{i}.png", rng)
        for defect in (ODD, PLAIN):
            spot = SPOTS[i] if defect == ODD else (10 + i, 30, 30 + i, 60)
            orientation = 6 if defect == ODD and i == 10 else 1
            save_noise(folder / "test" / defect / f"{i}.png", rng, spot, orientation=orientation)
            mask = folder / "ground_truth" / defect / f"{i}_mask.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            box = MASKS[i] if defect == ODD else (12, 33 + 2 * i, 40, 76)
            Image.fromarray(area_of(box).astype(np.uint8) * 255).save(mask)
    model = root / "models" / MODEL
    model.parent.mkdir()
    facts = write_model(Red(), model, file_format="ONNX", input_shape=(2, 3, SIZE, SIZE))
    about = new_sidecar(category=CATEGORY, view=square(SIZE), config=None)
    record_export(model, model, about, checkpoint={}, facts=facts | {"batch_size": 2})
    return root, model


def run(module, *flags):
    assert module.main(module.parse_args([str(flag) for flag in flags])) == 0


@pytest.fixture(scope="module")
def evaluated(odd, tmp_path_factory):
    """What test.py writes: results.json, report.html and samples.png below the category, and the index above."""
    root, model = odd
    out = tmp_path_factory.mktemp("evaluated")
    folder = out / CATEGORY
    flags = ("--eval_url", root, "--category", CATEGORY, "--ckpt_path", model, "--out_dir", out)
    run(test_entry, *flags, "--threshold", THRESHOLD, "--report", folder, "--save_sample", "True")
    run(report, "--index", out)
    return out


def upright(path, mode):
    with Image.open(path) as picture:
        return ImageOps.exif_transpose(picture).convert(mode)


@pytest.fixture(scope="module")
def truth(odd):
    """Files, red channel and grey masks of all test images by Pillow alone, in the order of their names."""
    folder = odd[0] / CATEGORY
    names, red, grey = [], [], []
    for defect in sorted(path.name for path in (folder / "test").iterdir()):
        for stem in sorted(str(i) for i in SPOTS):
            picture = upright(folder / "test" / defect / f"{stem}.png", "RGB")
            names.append(f"{defect}/{stem}.png")
            red.append(np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS))[..., 0])
            mask = Image.new("L", picture.size)
            if defect != "good":
                mask = upright(folder / "ground_truth" / defect / f"{stem}_mask.png", "L")
            grey.append(np.asarray(mask.resize((SIZE, SIZE), Image.Resampling.BILINEAR)))
    return names, np.stack(red), np.stack(grey)


def read_results(folder):
    return json.loads((folder / "results.json").read_text())


def test_pairing(odd, truth):
    samples = list_test(odd[0], CATEGORY)
    assert [f"{one.defect}/{one.path.name}" for one in samples] == truth[0]
    for one in samples:
        mask = one.mask_path and f"{one.mask_path.parent.name}/{one.mask_path.name}"
        assert mask == (None if one.defect == "good" else f"{one.defect}/{one.path.stem}_mask.png")


def test_masks(odd, truth):
    """Pillow's bilinear, upright, grey where an edge is between pixels: the three rules differ in every mask."""
    masks = decode_masks(list_test(odd[0], CATEGORY), view=square(SIZE))
    assert np.array_equal(masks, truth[2])
    for mask in masks[[name.partition("/")[0] != "good" for name in truth[0]]]:
        areas = [int(binary_mask(mask, rule).sum()) for rule in ("erode", "half", "dilate")]
        assert 0 < areas[0] < areas[1] < areas[2]


def test_scores(evaluated, truth):
    names, red, _ = truth
    found = read_results(evaluated / CATEGORY)
    assert [record["file"] for record in found["scores"]] == names
    assert [record["score"] for record in found["scores"]] == pytest.approx((red.max((1, 2)) / 255).tolist(), abs=1e-6)
    verdicts = ["good" if name.startswith("good") else "defective" for name in names]
    assert [record["verdict"] for record in found["scores"]] == verdicts
    assert (found["category"], found["model"], found["image_size"]) == (CATEGORY, MODEL, SIZE)
    assert found["images"] == {"test": 9, "good": 3, "defective": 6, "in_pixel_metrics": 9}


@pytest.mark.parametrize("rule", MASK_RULES)
def test_auroc(evaluated, truth, rule):
    """What counts as defective: pixels that are half, fully, or at all covered by the mask."""
    _, red, grey = truth
    labels = {"half": grey >= 127.5, "erode": grey == 255, "dilate": grey > 0}[rule]
    found = read_results(evaluated / CATEGORY)["pixel_auroc_by_mask_rule"]
    assert found[rule] == pytest.approx(roc_auc_score(labels.ravel(), red.ravel()), abs=1e-9)
    assert len({round(value, 4) for value in found.values()}) == 3


def test_auroc_by_defect(evaluated, truth):
    """Of one type's images with all good ones."""
    names, red, grey = truth
    kinds = np.array([name.partition("/")[0] for name in names])
    found = read_results(evaluated / CATEGORY)
    assert sorted(found["by_defect"]) == sorted([ODD, PLAIN])
    for defect, values in found["by_defect"].items():
        rows = (kinds == defect) | (kinds == "good")
        expected = roc_auc_score((grey[rows] >= 128).ravel(), red[rows].ravel())
        assert values["pixel_auroc"] == pytest.approx(expected, abs=1e-9)
        assert values["image_auroc"] == roc_auc_score(kinds[rows] != "good", red[rows].max((1, 2)))
        assert values["images"] == 3
    assert len({found["pixel_auroc"], *(values["pixel_auroc"] for values in found["by_defect"].values())}) == 3


def test_mask_rule(odd, evaluated, tmp_path):
    """--mask_rule chooses, here from what the usual run tells of all."""
    flags = ("--eval_url", odd[0], "--category", CATEGORY, "--ckpt_path", odd[1], "--out_dir", tmp_path)
    run(test_entry, *flags, "--mask_rule", "erode")
    usual, found = read_results(evaluated / CATEGORY), read_results(tmp_path / CATEGORY)
    assert found["pixel_auroc"] == usual["pixel_auroc_by_mask_rule"]["erode"] != usual["pixel_auroc"]


def test_regions(odd, tmp_path):
    """In the pixels of the picture as it is shown, of the turned one, too."""
    folder = odd[0] / CATEGORY / "test" / ODD
    run(predict, "--image_path", folder, "--ckpt_path", odd[1], "--out_dir", tmp_path, "--threshold", THRESHOLD)
    rows = read_csv(tmp_path / "regions.csv")
    assert [row["file"] for row in rows] == ["1.png", "10.png", "2.png"]
    for row in rows:
        left, upper, right, lower = SPOTS[int(row["file"][:-4])]
        x, y, width, height = (int(row[name]) for name in ("x", "y", "width", "height"))
        assert (x, y, x + width, y + height) == (left, upper, right, lower)
        assert int(row["area"]) == width * height
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert content["model"] == MODEL
    assert {record["file"]: len(record["regions"]) for record in content["images"]} == dict.fromkeys(
        ("1.png", "10.png", "2.png"), 1
    )


def test_without_mindspore(odd, evaluated, tmp_path):
    """preprocess.py, a program that takes the red channel, postprocess.py: the results are test.py's."""
    root, model = odd
    inputs, maps = tmp_path / "inputs", tmp_path / "maps"
    about = ("--data_dir", root, "--category", CATEGORY, "--mindir_path", model)
    run(preprocess, *about, "--img_dir", inputs)
    run(preprocess, *about, "--img_dir", inputs, "--check", "True")
    images = json.loads((inputs / "manifest.json").read_text())["images"]
    assert [image["source"] for image in images][:3] == [f"test/{ODD}/{i}.png" for i in (1, 10, 2)]
    maps.mkdir()
    for image in images:
        array = np.fromfile(inputs / f"{image['name']}.bin", np.float32).reshape(3, SIZE, SIZE)
        (array[0] * np.float32(0.229) + np.float32(0.485)).tofile(maps / f"{image['name']}_0.bin")
    flags = ("--label_dir", inputs, "--result_dir", maps, "--out_dir", tmp_path / "out", "--threshold", THRESHOLD)
    run(postprocess, *about, *flags)
    expected, found = read_results(evaluated / CATEGORY), read_results(tmp_path / "out")
    scores = [[record.pop("score") for record in results.pop("scores")] for results in (expected, found)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    for results in (expected, found):
        results.pop("best_f1_on_test_labels")  # its threshold is a score
    assert found == expected


def test_check(odd, capsys):
    run(dataset, "--check", odd[0])
    assert f"{CATEGORY:<16}      3      9      6  -            0" in capsys.readouterr().out


def test_report(evaluated, truth):
    """Every tag is the report's own, every attribute one that it gives, and names are in them letter by letter."""
    page = Page(evaluated / CATEGORY / "report.html")
    drawn = {"svg", "g", "path", "defs", "use", "rect", "clippath", "text", "style", "metadata", "rdf:rdf", "cc:work"}
    drawn |= {"dc:type", "dc:format"}
    own = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "div", "table", "thead", "tbody"}
    own |= {"tr", "th", "td", "figure", "svg", "image", "figcaption", "form", "label", "select", "option", "output"}
    own |= {"script", "section", "button", "span", "dialog", "header", "input", "code"}
    assert {tag for tag, _ in page.tags} <= own | drawn
    assert not [(tag, name) for tag, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text("title") == page.text("h1") == [f"STPM: {CATEGORY}"]
    assert page.text("p")[0].startswith(f"Model {MODEL}, {SIZE} pixels; 9 test images, 3 good and 6 defective.")
    assert {ODD, PLAIN} <= set(page.text("td"))
    options = page.text("option")
    assert options[options.index(ODD) : options.index(ODD) + 3] == [ODD, PLAIN, "good"]
    # what a form sends: a browser collapses the spaces of an option's text, not those of its value
    sent = [option.get("value", " ".join(text.split())) for option, text in zip(
        page.attributes("option"), options, strict=True)]  # fmt: skip
    assert {tile["data-type"] for tile in page.tiles()} <= set(sent)
    assert [tile["data-type"] for tile in page.tiles()] == [name.rpartition("/")[0] for name in truth[0]]
    for tile, caption, name in zip(page.tiles(), page.captions, truth[0], strict=True):
        assert set(tile) == {"class", "data-score", "data-rank", "data-type", "data-verdict", "data-wrong"}
        assert caption.startswith(f"{name}: score {float(tile['data-score']):.2f}, called {tile['data-verdict']}")
    for picture in page.attributes("image"):
        assert set(picture) - {"id"} == {"width", "height", "href"}
        assert decoded(picture).shape[:2] == (int(picture["height"]), int(picture["width"]))
    buttons = [button for button in page.attributes("button") if button.get("class") == "panels"]
    assert {frozenset(button) for button in buttons} == {frozenset({"type", "class", "disabled", "aria-label"})}
    assert [button["aria-label"] for button in buttons] == [f"{name} at full size" for name in truth[0]]
    with Image.open(evaluated / CATEGORY / "samples.png") as sheet:
        assert sheet.height > 3 * sheet.width / 4  # a row for each of three types


def test_index(evaluated):
    page = Page(evaluated / "report.html")
    (link,) = page.attributes("a")
    assert set(link) == {"href"}
    assert unquote(link["href"]) == f"{CATEGORY}/report.html"
    assert (evaluated / unquote(link["href"])).is_file()
    assert page.text("a") == [CATEGORY]
    assert {tag for tag, _ in page.tags} == {
        *("html", "head", "meta", "title", "style", "body", "h1", "div"),
        *("table", "thead", "tbody", "tr", "th", "td", "a"),
    }
    results = read_results(evaluated / CATEGORY)
    metrics = [f"{results[name]:.4f}" for name in ("pixel_auroc", "image_auroc", "pro")]
    assert page.rows[1][:4] == [CATEGORY, *metrics]


def test_training(odd, random_backbone, tmp_path):
    """Trained and exported, the category keeps its name, and test.py knows it again."""
    flags = train_arguments(odd[0], random_backbone, tmp_path, epoch=1, category=CATEGORY)
    run(train, *flags, "--image_size", 32)
    checkpoint = tmp_path / CATEGORY / f"{CATEGORY}_last.ckpt"
    assert json.loads(checkpoint.with_suffix(".json").read_text())["category"] == CATEGORY
    about = ("--category", CATEGORY, "--image_size", 32)
    run(export, "--ckpt_file", checkpoint, *about, "--file_format", "ONNX", "--out_dir", tmp_path / "exported")
    model = tmp_path / "exported" / f"{CATEGORY}.onnx"
    run(test_entry, "--eval_url", odd[0], *about, "--ckpt_path", model, "--out_dir", tmp_path / "out")
    found = read_results(tmp_path / "out" / CATEGORY)
    assert (found["category"], found["model"]) == (CATEGORY, f"{CATEGORY}.onnx")
    assert found["images"]["test"] == 9
