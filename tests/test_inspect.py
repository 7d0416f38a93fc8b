"""stpm_inspect and libstpm.so: from picture files to verdicts in C++, with a stand-in for the inference library.

What src/predict.py does, too, is tried in test_line.py. The stand-in's map is the first channel of the network's input
plus one: what Python must make of it is known.
"""

import csv
import hashlib
import io
import json
import os
import subprocess
import time

import cv2
import numpy as np
import pytest
from PIL import Image

from src import predict
from src.data.images import load_image
from src.data.view import Box, ImageSize, View
from src.detector import Detector
from src.evaluation.decision import DecisionRule
from src.model.sidecar import FORMER_PREPROCESSING, PREPROCESSING
from src.report.pictures import colour_map
from tests.conftest import call
from tests.picture_corpus import picture
from tests.test_infer import SOURCE, build
from tests.test_infer import program as program
from tests.test_infer import sanitized as sanitized
from tests.test_pictures_in_cpp import need_libraries

SIZE = ImageSize(32, 48)
FIELDS = ["file", "score", "relative_score", "verdict", "regions", "error", "decode_ms", "inference_ms"]


@pytest.fixture(scope="module")
def built(sanitized):
    """The folder with program and library, with sanitizers, where a warning is an error."""
    need_libraries()
    return sanitized("address,undefined", "stpm_inspect", "stpm_c")


def write_model(folder, *, batch=1, threshold=3.0, name="model", extra="", **more):
    """Write a model for the stand-in, and its JSON; return its path."""
    shapes = f"{batch} {{}} {SIZE.height} {SIZE.width}\n"
    content = "in float32 " + shapes.format(3) + "out float32 " + shapes.format(1) + extra
    (folder / name).write_text(content)
    exports = {name: {"sha256": hashlib.sha256(content.encode()).hexdigest()}}
    sidecar = {"format": 1, "image_size": list(SIZE), "preprocessing": PREPROCESSING, "threshold": threshold}
    (folder / f"{name}.json").write_text(json.dumps(sidecar | more | {"exports": exports}))
    return folder / name


def start(built, *arguments, **options):
    words = [built / "stpm_inspect", *map(str, arguments), "--device_type", "CPU", "--threads", "1"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def inspect(built, *arguments, text=None, **options):
    """Run the program; return its status, what it wrote, and its errors."""
    process = start(built, *arguments, stdin=subprocess.PIPE, errors="surrogateescape", **options)
    stdout, stderr = process.communicate(text, timeout=60)
    return process.returncode, stdout, stderr


def records(stdout):
    return [json.loads(line) for line in stdout.splitlines()]


def save(path, *, level=128, spot=None, size=(60, 40)):
    """Write a grey picture, with a spot of another level at a box."""
    image = Image.new("RGB", size, (level,) * 3)
    if spot:
        image.paste((255,) * 3, spot)
    image.save(path)


@pytest.mark.parametrize(
    ("batch", "roi", "min_area"), [(1, None, 1), (3, Box(2, 3, 30, 20), 1), (2, None, 40)], ids=["plain", "roi", "area"]
)
def test_same_as_predict(built, tmp_path, batch, roi, min_area):
    """Scores, verdicts, regions and refusals of pictures of all kinds, however many are decoded at a time."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(60):
        suffix, content, _ = picture(number)
        (folder / f"{number:03}.{suffix}").write_bytes(content)
    (folder / "notes.txt").touch()
    view = View(SIZE, roi)
    rule = DecisionRule(2.5, min_area, 0.8)
    given = {"min_area": min_area, "review": 0.8} | ({"roi": list(roi)} if roi else {})
    model = write_model(tmp_path, batch=batch, threshold=2.5, **given)
    paths = sorted(path for path in folder.iterdir() if path.suffix != ".txt")
    detector = Detector(lambda x: x[:, :1] + np.float32(1), view=view, batch_size=batch, rule=rule)
    expected = list(detector.stream(paths))

    status, stdout, stderr = inspect(built, "--model", model, "--images", folder, "--format", "jsonl", "--decoders", 3)
    found = records(stdout)
    assert status == 1
    assert [record["file"] for record in found] == [path.name for path in paths]
    for record, one in zip(found, expected, strict=True):
        if "which Python alone reads here" in record.get("error", ""):
            continue
        if one.error:
            assert record["verdict"] == "error"
            # of some damage Pillow tells more
            assert record["error"].split(" (")[0] == one.error.split(" (")[0]
            assert f"error: {record['error']}\n" in stderr
            continue
        assert np.float32(record["score"]) == np.float32(one.score)
        assert (record["relative_score"], record["verdict"]) == (pytest.approx(one.relative_score), one.verdict)
        fields = ("x", "y", "width", "height", "area", "score")
        assert [tuple(region[name] for name in fields) for region in record["regions"]] == [
            tuple(pytest.approx(getattr(region, name)) for name in fields) for region in one.regions
        ]
    verdicts = [record["verdict"] for record in found if record["verdict"] != "error"]
    counts = [f"{verdicts.count(verdict)} {verdict}" for verdict in rule.verdicts]
    assert len(set(verdicts)) > 1
    assert stderr.splitlines()[-1] == f"60 images, {60 - len(verdicts)} unreadable, {', '.join(counts)}"

    status, stdout, _ = inspect(built, "--model", model, "--images", folder)
    rows = list(csv.DictReader(io.StringIO(stdout)))
    assert list(rows[0]) == FIELDS
    for row, record in zip(rows, found, strict=True):
        assert (row["file"], row["verdict"]) == (record["file"], record["verdict"])
        assert row["score"] == ("" if row["error"] else f"{record['score']}")
        assert int(row["regions"]) == len(record.get("regions", ()))


def test_overlays(built, tmp_path):
    """The image with its outline, and the map in the colours of Python's pictures."""
    model = write_model(tmp_path, threshold=2.0)
    (tmp_path / "in").mkdir()
    save(tmp_path / "in/bad.png", level=90, spot=(10, 10, 30, 30))
    save(tmp_path / "in/good.png", level=90)
    run = ("--model", model, "--images", tmp_path / "in", "--overlay_dir", tmp_path / "shown")
    assert inspect(built, *run, "--overlay", "defective")[0] == 0
    assert [path.name for path in (tmp_path / "shown").iterdir()] == ["bad.png.png"]
    assert inspect(built, *run, "--overlay", "all")[0] == 0
    shown = np.asarray(Image.open(tmp_path / "shown/bad.png.png"))
    image = load_image(tmp_path / "in/bad.png", View(SIZE))
    one = ((image[..., 0] / np.float32(255) - np.float32(0.485)) / np.float32(0.229) + 1).astype(np.float32)
    left, right = shown[:, : SIZE.width], shown[:, -SIZE.width :]
    np.testing.assert_array_equal(right, colour_map(one, 2.0))
    contours, _ = cv2.findContours((one >= 2.0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = np.zeros(SIZE, np.uint8)
    cv2.drawContours(outline, contours, -1, 255, 1)
    np.testing.assert_array_equal((left == (255, 230, 0)).all(-1), outline == 255)
    around = cv2.dilate(outline, np.ones((3, 3), np.uint8)) == 255
    assert (left[around & (outline == 0)] == 0).all()
    np.testing.assert_array_equal(left[~around], image[~around])
    assert Image.open(tmp_path / "shown/good.png.png").size == (2 * SIZE.width + 6, SIZE.height)
    # who cannot be shown has a line all the same
    (tmp_path / "shown/bad.png.png").unlink()
    (tmp_path / "shown/bad.png.png").mkdir()
    status, stdout, stderr = inspect(built, *run, "--overlay", "all")
    assert (status, len(stdout.splitlines())) == (1, 3)
    assert "bad.png.png: cannot be written" in stderr


def test_small_regions(built, tmp_path):
    """What is too small to count has no outline."""
    image = Image.new("RGB", (60, 40), (90,) * 3)
    image.paste((255,) * 3, (10, 10, 30, 30))
    image.paste((255,) * 3, (50, 5, 53, 8))
    image.save(tmp_path / "a.png")
    outlines = []
    for area in (1, 60):
        model = write_model(tmp_path, threshold=2.0, name=f"area{area}", min_area=area)
        run = ("--model", model, "--images", tmp_path / "a.png", "--overlay_dir", tmp_path / str(area))
        assert inspect(built, *run, "--overlay", "all")[0] == 0
        shown = np.asarray(Image.open(tmp_path / str(area) / "a.png.png"))[:, : SIZE.width]
        outlines.append((shown == (255, 230, 0)).all(-1))
    assert outlines[0][:, 36:].any()
    assert not outlines[1][:, 36:].any()
    np.testing.assert_array_equal(outlines[0][:, :36], outlines[1][:, :36])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preprocessing": PREPROCESSING | {"resize": "BILINEAR"}}, "holds no preprocessing that this program does"),
        ({"image_size": 64}, "image_size is 64, but"),
        ({"roi": [1, 2, 3]}, "roi is wrong, expected x, y, width and height"),
        ({"roi": [0, 0, 0, 5]}, "roi is wrong"),
        ({"threshold": 0}, "threshold is wrong"),
    ],
)
def test_models_refused(built, tmp_path, changes, message):
    save(tmp_path / "a.png")
    status, stdout, stderr = inspect(built, "--model", write_model(tmp_path, **changes), "--images", tmp_path / "a.png")
    assert (status, stdout) == (1, "")
    assert message in stderr
    model = write_model(tmp_path)
    (tmp_path / "model.json").unlink()
    assert "model.json: is missing" in inspect(built, "--model", model, "--images", tmp_path / "a.png")[2]


def test_former_release(built, tmp_path):
    """Tall pictures were resized in another order: said once."""
    model = write_model(tmp_path, preprocessing=FORMER_PREPROCESSING)
    for name in ("a", "b"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (400, 90, 3), np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    status, _, stderr = inspect(built, "--model", model, "--images", tmp_path)
    assert status == 0
    assert stderr.count("resized tall pictures height first") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--images", "a"), "--model is required"),
        (("--model", "m"), "expected one of --images, --watch and --stdin, got 0"),
        (("--model", "m", "--images", "a", "--stdin"), "expected one of --images, --watch and --stdin, got 2"),
        (("--model", "m", "--stdin", "--after", "move"), "--after: is for --watch only"),
        (("--model", "m", "--watch", "a", "--after", "burn"), "--after: expected keep, move or delete, got 'burn'"),
        (("--model", "m", "--stdin", "--overlay", "all"), "--overlay_dir is required with --overlay"),
        (("--model", "m", "--stdin", "--deadline_ms", "0"), "--deadline_ms: expected a number above 0"),
        (("--model", "m", "--stdin", "--format", "xml"), "--format: expected csv or jsonl, got 'xml'"),
    ],
)
def test_bad_usage(built, flags, message):
    done = subprocess.run([built / "stpm_inspect", *flags], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_folders_in_the_way(built, tmp_path):
    """What is written must not be inspected in turn, nor go where files cannot be moved."""
    model, folder = write_model(tmp_path), tmp_path / "in"
    folder.mkdir()
    save(folder / "a.png")
    shown = ("--overlay", "all", "--overlay_dir", tmp_path / "in/../in")
    for source in ("--images", "--watch"):
        status, stdout, stderr = inspect(built, "--model", model, source, folder, *shown)
        assert (status, stdout) == (1, "")
        assert "--overlay_dir" in stderr
        assert "is where the pictures come from" in stderr
    watch = ("--model", model, "--watch", folder)
    assert "is where the pictures come from" in inspect(built, *watch, "--after", "move", "--after_dir", folder)[2]
    if os.stat("/dev/shm").st_dev != os.stat(tmp_path).st_dev:
        stderr = inspect(built, *watch, "--after", "move", "--after_dir", "/dev/shm")[2]
        assert "--after_dir /dev/shm: is on another file system than" in stderr
    missing = ("--model", model, "--watch", tmp_path / "none", "--after", "move")
    assert "none: no such folder to watch" in inspect(built, *missing)[2]
    assert not (tmp_path / "none").exists()


def test_deadline(built, tmp_path):
    """Marked and counted, not dropped."""
    model = write_model(tmp_path)
    save(tmp_path / "a.png")
    run = ("--model", model, "--images", tmp_path / "a.png", "--report_every", 1)
    for deadline, late in (("0.0001", "1"), ("60000", "0")):
        status, stdout, stderr = inspect(built, *run, "--deadline_ms", deadline)
        row = next(csv.DictReader(io.StringIO(stdout)))
        assert (status, row["late"], row["verdict"]) == (0, late, "good")
        assert (", 1 late" in stderr) == (late == "1")
        assert "1 pictures: p50 " in stderr


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def test_watched_errors(built, tmp_path):
    """An unreadable picture is an error and is not deleted; one of the name of a moved one takes no place of it."""
    model, folder, done = write_model(tmp_path), tmp_path / "in", tmp_path / "done"
    folder.mkdir()
    run = ("--model", model, "--watch", folder, "--format", "jsonl")
    process = start(built, *run, "--after", "delete")
    for name in ("bad.png", "good.png"):
        (folder / "x.part").write_bytes(b"no picture")
        if name == "good.png":
            save(folder / "x.part.png")
            (folder / "x.part.png").rename(folder / "x.part")
        (folder / "x.part").rename(folder / name)
    found = [json.loads(process.stdout.readline()) for _ in range(2)]
    if "x.part.png" in {record["file"] for record in found}:
        found = [record for record in [*found, json.loads(process.stdout.readline())] if record["file"][0] != "x"]
    process.terminate()
    process.communicate(timeout=30)
    assert {record["file"]: record["verdict"] for record in found} == {"bad.png": "error", "good.png": "good"}
    assert [path.name for path in folder.iterdir()] == ["bad.png"]
    (folder / "bad.png").unlink()

    process = start(built, *run, "--after", "move", "--after_dir", done)
    for _ in range(2):
        save(tmp_path / "a.png")
        (tmp_path / "a.png").rename(folder / "a.png")
        assert json.loads(process.stdout.readline())["file"] == "a.png"
        wait_for(lambda: not (folder / "a.png").exists())
    second = start(built, *run)
    assert second.communicate(timeout=30)[1].count("is in use by process") == 1
    process.terminate()
    process.communicate(timeout=30)
    assert sorted(path.name for path in done.iterdir()) == ["a-2.png", "a.png"]


def test_example(built, tmp_path):
    """The example of the C interface, by the command that it names, gives what the program gives."""
    source = SOURCE / "example/camera.c"
    rpath = "-Wl,-rpath," + str(built)
    flags = ["-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-I", SOURCE / "inc", "-L", built, "-lstpm"]
    build(["cc", source, "-o", tmp_path / "camera", *flags, rpath + ",--allow-shlib-undefined"])
    model = write_model(tmp_path, threshold=2.0, batch=2)
    save(tmp_path / "a.png", level=90, spot=(10, 10, 30, 30))
    save(tmp_path / "b.png", level=90)
    frames = b"".join(Image.open(tmp_path / name).tobytes() for name in ("a.png", "b.png"))
    run = subprocess.run(
        [tmp_path / "camera", model, "60", "40"], input=frames, capture_output=True, check=False,
        env=os.environ | {"STPM_DAVINCI": "/nowhere"},
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, b"")
    expected = records(inspect(built, "--model", model, "--images", tmp_path, "--format", "jsonl")[1])
    for number, (line, record) in enumerate(zip(run.stdout.decode().splitlines(), expected, strict=True)):
        words = line.split()
        boxes = [",".join(str(region[name]) for name in ("x", "y", "width", "height")) for region in record["regions"]]
        assert words[:2] == [str(number), record["verdict"]]
        assert float(words[2]) == pytest.approx(record["score"], rel=1e-5)
        assert words[3:] == boxes
    refused = subprocess.run([tmp_path / "camera", "none", "60", "40"], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "error: none: cannot be read" in refused.stderr


def test_real_library(program, exported, session_tree, tmp_path):
    """Scores, verdicts and boxes are predict's, of the same exported model."""
    inspect_program = program.with_name("stpm_inspect")
    if not inspect_program.exists():
        need_libraries()
    model, folder = exported / "widget.mindir", tmp_path / "in"
    folder.mkdir()
    for path in sorted((session_tree / "widget/test").glob("*/*.png")):
        (folder / f"{path.parent.name}_{path.name}").write_bytes(path.read_bytes())
    score = 1.0
    for threshold in (None, "score"):
        flags = [] if threshold is None else ["--threshold", str(score)]
        words = ["--image_path", folder, "--ckpt_path", model, "--out_dir", tmp_path / "p", *flags]
        assert call(predict, *words) == 0
        images = json.loads((tmp_path / "p/predictions.json").read_text())["images"]
        words = [inspect_program, "--model", model, "--images", folder, "--format", "jsonl", "--selftest", *flags]
        found = records("\n".join(line for line in build(words).splitlines() if line.startswith("{")))
        assert len(found) == len(images) == 6
        for record, image in zip(found, images, strict=True):
            assert record["score"] == pytest.approx(image["score"], rel=1e-5)
            assert (record["file"], record["verdict"]) == (image["file"], image["verdict"])
            boxes = [[{**region, "score": 0} for region in one["regions"]] for one in (record, image)]
            assert boxes[0] == boxes[1]
        score = sorted(image["score"] for image in images)[2] * 0.9
