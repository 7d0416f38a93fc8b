"""A detector in a program of one's own: what it takes, what it gives, and that the programs give the same."""

import json
import re
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import ExifTags, Image

import src as stpm
import train as train_entry
from src import calibrate as calibrate_entry
from src import predict as predict_entry
from src.callbacks import StopOnBadLoss
from src.checkpoint import read_checkpoint
from src.data.samples import list_train, samples_sha256
from src.data.view import square
from src.detector import Detector
from src.device import pinned
from src.training.from_images import sources_sha256
from src.utils import InputError
from tests.conftest import (
    ROOT,
    forget_process,
    missing,
    run_python,
    save_picture,
    train_arguments,
    user_environment,
)  # fmt: skip
from tests.plain_model import red_map, write_red_model

RNG = np.random.default_rng(5)


def picture(height=40, width=60, red=None):
    array = RNG.integers(0, 200, (height, width, 3), np.uint8)
    if red is not None:
        array[..., 0] = red
    return array


@pytest.fixture
def folder(tmp_path):
    """A folder of 5 pictures of several sizes."""
    for i in range(5):
        save_picture(tmp_path / f"new/{i}.png", np.random.default_rng(i), size=(60 + 20 * i, 50))
    return tmp_path / "new"


def same(one, other):
    return (
        one.score == other.score
        and one.regions == other.regions
        and np.array_equal(one.anomaly_map, other.anomaly_map)
        and np.array_equal(one.image, other.image)
    )


def models(trained, exported):
    return trained[0] / "widget/widget_last.ckpt", exported / "widget.mindir", exported / "widget.onnx"


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["ckpt", "mindir", "onnx"])
def test_same_as_predict(folder, trained, exported, tmp_path, kind):
    """Scores, verdicts and regions are those of the program, bit for bit, however the images are given."""
    model = models(trained, exported)[kind]
    flags = ("--image_path", folder, "--ckpt_path", model, "--out_dir", tmp_path / "out")
    scores = sorted(i.score for i in stpm.Detector.load(model, "CPU").stream(folder))
    threshold = scores[2]
    assert predict_entry.main(predict_entry.parse_args([*map(str, flags), "--threshold", repr(threshold)])) == 0
    expected = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert sum(record["verdict"] == "defective" for record in expected) == 3
    detector = stpm.Detector.load(model, "CPU", threshold)
    paths = sorted(folder.iterdir())
    arrays = [np.asarray(Image.open(path)) for path in paths]
    for given in (paths, list(map(str, paths)), [Image.open(path) for path in paths], arrays):
        found = detector.inspect(given)
        records = [
            {
                "score": i.score,
                "relative_score": i.relative_score,
                "verdict": i.verdict,
                "regions": list(map(vars, i.regions)),
            }
            for i in found
        ]
        assert records == [{name: record[name] for name in records[0]} for record in expected]
    assert same(detector.inspect(arrays[3]), found[3])
    assert found[0].anomaly_map.dtype == np.float32
    assert detector.scores(folder).tolist() == [record["score"] for record in expected]


@pytest.mark.parametrize("kind", [0, 2], ids=["ckpt", "onnx"])
def test_threads(folder, trained, exported, kind):
    """One detector in four threads, and two detectors, give what one alone gives."""
    paths = sorted(folder.iterdir())
    detector = stpm.Detector.load(models(trained, exported)[kind], "CPU", 1e-3)
    other = stpm.Detector.load(models(trained, exported)[2 - kind], "CPU", 1e-3)
    alone, alone_other = detector.inspect(paths), other.inspect(paths)
    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(one.inspect, paths) for one in (detector, other, detector, detector, detector, other)]
        found = [job.result() for job in jobs]
    for i, inspections in enumerate(found):
        expected = alone_other if i in (1, 5) else alone
        assert all(map(same, inspections, expected))


def test_kinds_of_image(tmp_path):
    """By Pillow alone: grey, 16 bits, transparency and a turned picture, in memory as in their files."""
    detector = stpm.Detector.load(write_red_model(tmp_path / "model"))
    grey = picture()[..., 0]
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    clear = Image.fromarray(np.dstack([picture(), picture()[..., 0]]))
    for name, image in {
        "grey": Image.fromarray(grey),
        "deep": deep,
        "clear": clear,
        "plain": Image.fromarray(picture()),
    }.items():
        image.save(tmp_path / f"{name}.png")
        assert same(detector.inspect(image), detector.inspect(tmp_path / f"{name}.png"))
    assert np.allclose(detector.inspect(grey).anomaly_map, red_map(tmp_path / "grey.png"), atol=1e-6)
    assert same(detector.inspect(grey), detector.inspect(np.dstack([grey] * 3)))
    assert same(detector.inspect(np.asfortranarray(grey)), detector.inspect(grey))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(picture()).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as turned:
        found = detector.inspect(turned)
        assert turned.size == (60, 40)
    assert found.box == (0, 0, 40, 60)
    assert same(found, detector.inspect(tmp_path / "turned.png"))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"images\[1\]: is an array float32 \(4, 4, 3\); expected uint8"),
        (np.zeros((4, 4, 4), np.uint8), r"images\[1\]: is an array uint8 \(4, 4, 4\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"images\[1\]: is an array uint8 \(2, 4, 4, 3\)"),
        (np.zeros((0, 4), np.uint8), r"images\[1\]: is an array uint8 \(0, 4\)"),
        (Image.new("F", (4, 4)), r"images\[1\]: is a PIL image of mode F; expected one of 1, L"),
        (7, r"images\[1\]: is of type int; expected a path, a PIL image or a numpy array"),
        ("nowhere.png", r"nowhere\.png: .*No such file"),
    ],
)
def test_refused_images(tmp_path, image, message):
    """In a list the message names the image; a stream goes on."""
    detector = stpm.Detector.load(write_red_model(tmp_path / "model"))
    with pytest.raises(InputError, match=message):
        detector.inspect([picture(), image])
    found = list(detector.stream([picture(), image, picture()]))
    assert [bool(one.error) for one in found] == [False, True, False]
    assert (found[1].score, found[1].anomaly_map) == (None, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"device": "cpu"}, "device 'cpu': expected auto, Ascend, GPU, CPU"),
        ({"threshold": 0}, "threshold 0: expected a number from"),
        ({"threshold": float("nan")}, "threshold nan: "),
        ({"review": 1.5}, "review 1.5: expected a number above 0 and below 1"),
        ({"batch_size": 0}, "batch_size 0: expected a whole number"),
        ({"batch_size": 3}, "was exported for 4"),
        ({"path": "nowhere.onnx"}, "nowhere.onnx: "),
    ],
)
def test_refused_values(tmp_path, values, message):
    with pytest.raises(InputError, match=message):
        stpm.Detector.load(**{"path": write_red_model(tmp_path / "model")} | values)


def test_refused_folder(tmp_path, folder):
    detector = stpm.Detector.load(write_red_model(tmp_path / "model"))
    with pytest.raises(InputError, match="new: is a folder; stream"):
        detector.inspect(folder)
    with pytest.raises(InputError, match="is one image; expected a folder"):
        list(detector.stream(picture()))
    with pytest.raises(InputError, match="without a threshold there is nothing to outline"):
        detector.inspect(picture()).overlay()
    assert detector.inspect([]) == []


def test_regions_and_overlay(tmp_path):
    """A red square in a picture of 320 x 256: its box, and an outline around it in the overlay."""
    detector = stpm.Detector.load(write_red_model(tmp_path / "model"), threshold=0.5)
    pixels = np.full((256, 320, 3), (20, 200, 200), np.uint8)
    pixels[64:128, 160:240, 0] = 255
    found = detector.inspect(pixels)
    assert (found.verdict, found.regions[0].score, len(found.regions)) == ("defective", found.score, 1)
    region = found.regions[0]
    assert (region.x, region.y, region.width, region.height) == (160, 64, 80, 64)
    overlay = found.overlay()
    assert (overlay.size, overlay.mode) == ((320, 256), "RGB")
    rows, columns = np.nonzero((np.asarray(overlay) == (255, 230, 0)).all(axis=2))
    edges = np.array((rows.min(), rows.max(), columns.min(), columns.max()))
    assert np.abs(edges - (64, 127, 160, 239)).max() <= 8  # a pixel of the map
    assert detector.inspect(pixels[::4, ::4]).overlay().size == (256, 205)


def good_images(tmp_path):
    """Twelve pictures of which the reddest pixel is known, as files and as arrays."""
    arrays = [picture(32, 32, red=100 + i) for i in range(12)]
    (tmp_path / "good").mkdir()
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(tmp_path / f"good/{i:02}.png")
    return tmp_path / "good", arrays


def test_calibrate(tmp_path):
    """What the program writes, and its threshold; from arrays the same; without save nothing is written."""
    good, arrays = good_images(tmp_path)
    by_program, model = write_red_model(tmp_path / "one"), write_red_model(tmp_path / "two")
    flags = ["--ckpt_path", by_program, "--category", "widget", "--image_path", good, "--target_fpr", 0.2]
    flags += ["--min_area", "4", "--review", 0.9]
    assert calibrate_entry.main(calibrate_entry.parse_args(list(map(str, flags)))) == 0
    before = model.with_suffix(".json").read_bytes()
    detector = stpm.Detector.load(model)
    assert detector.threshold is None
    threshold = detector.calibrate(arrays, 0.2, min_area=4, review=0.9, save=False)
    assert model.with_suffix(".json").read_bytes() == before
    assert detector.threshold == threshold
    assert detector.inspect(picture(red=111)).verdict == "defective"
    assert detector.inspect(picture(red=105)).verdict == "review"
    assert stpm.Detector.load(model).calibrate(good, 0.2, min_area="4", review=0.9) == threshold
    expected, found = (json.loads(one.with_suffix(".json").read_text()) for one in (by_program, model))
    for content in (expected, found):
        del content["calibration"]["set_at"]
    assert found == expected
    assert list(found["calibration"]["scores"]) == [f"{i:02}.png" for i in range(12)]
    assert stpm.Detector.load(model).threshold == threshold


def test_refused_calibration(tmp_path):
    """What is wrong is said, and the threshold stays."""
    model = write_red_model(tmp_path / "model", threshold=0.5)
    before = model.with_suffix(".json").read_bytes()
    detector = stpm.Detector.load(model)
    for images, values, message in (
        ([picture(red=0)] * 3, {}, "no threshold for .*: scores must be positive"),
        ([picture()], {}, "1 image, expected at least 2"),
        ([picture()] * 3, {"target_fpr": 1}, "target_fpr 1: expected a number above 0"),
        ([picture()] * 3, {"min_area": "x"}, "min_area x: expected a number of pixels"),
        ([picture()] * 3, {"min_area": 9999}, "min_area 9999: is 4267 pixels of an anomaly map"),
        ([picture(), "nowhere.png"], {}, "nowhere.png"),
    ):
        with pytest.raises(InputError, match=message):
            detector.calibrate(images, **values)
    assert (detector.threshold, model.with_suffix(".json").read_bytes()) == (0.5, before)
    of_none = Detector(lambda images: images[:, :1] + 9, view=square(32), batch_size=1)
    with pytest.raises(InputError, match="the model: has no JSON beside it to keep the threshold in; save=False"):
        of_none.calibrate([picture()] * 3)


def test_calibrated_folder_is_free(tmp_path):
    """A process that goes on does not keep others from the model."""
    good, _ = good_images(tmp_path)
    model = write_red_model(tmp_path / "model")
    forget_process()  # which has written the model
    stpm.Detector.load(model).calibrate(good)
    done = run_python("-m", "src.calibrate", "--ckpt_path", model, "--category", "widget", "--image_path", good)
    assert done.returncode == 0, done.stderr


def test_train(session_tree, random_backbone, tmp_path):
    """Arrays give the weights and the threshold that train.py gives of their files, in a folder or not."""
    flags = [*train_arguments(session_tree, random_backbone, tmp_path / "program", epoch=1), "--val_split", 0.34]
    flags += ["--lr_schedule", "cosine", "--target_fpr", 0.2]
    assert train_entry.main(train_entry.parse_args(list(map(str, flags)))) == 0
    samples = list_train(session_tree, "widget")
    detector = stpm.train(
        [np.asarray(Image.open(sample.path)) for sample in samples],
        random_backbone,
        out_dir=tmp_path / "own",
        image_size=64,
        epochs=1,
        batch_size=3,
        val_split=0.34,
        target_fpr=0.2,
        device="CPU",
    )
    assert detector.path == tmp_path / "own/product_last.ckpt"
    program = tmp_path / "program/widget/widget_last.ckpt"
    weights, found = read_checkpoint(program), read_checkpoint(detector.path)
    assert weights.keys() == found.keys()
    assert all(np.array_equal(array, weights[name]) for name, array in found.items())
    expected, own = (json.loads(path.with_suffix(".json").read_text()) for path in (program, detector.path))
    assert own["threshold"] == expected["threshold"] == detector.threshold
    changed = {name for name in expected["config"] if own["config"][name] != expected["config"][name]}
    assert changed == {"category", "train_images_sha256"}
    records = (json.loads((path.parent / "train.json").read_text()) for path in (program, detector.path))
    epochs = [[(epoch["loss"], epoch["held_out_loss"]) for epoch in record["epochs"]] for record in records]
    assert epochs[0] == epochs[1]
    assert sources_sha256([sample.path for sample in samples]) == samples_sha256(samples)
    assert stpm.Detector.load(detector.path, "CPU").threshold == detector.threshold


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"recipe": "best"}, "recipe 'best': expected one of published, recommended"),
        ({"epochs": -1}, "epochs -1: expected a whole number"),
        ({"category": "a/b"}, "category: expected the name of a folder"),
        ({"image_size": 50}, "image_size 50: expected sides from 32"),
        ({"roi": (1, 2, 3)}, r"roi \(1, 2, 3\): expected X,Y,WIDTH,HEIGHT"),
        ({"roi": (0, 0, 70, 10)}, r"images\[0\]: has 60x40 pixels"),
        (
            {"val_split": 0.3},
            "val_split 0.3: cannot set a threshold by what it holds out: 1 image, expected at least 2",
        ),
        ({"val_split": 1}, "val_split 1: expected a number of at least 0"),
        ({"backbone": "nowhere.ckpt"}, "nowhere.ckpt"),
        ({"images": []}, "images: are none"),
    ],
)
def test_refused_training(tmp_path, values, message):
    """Before anything slow, and nothing is written."""
    values = {"images": [picture()] * 3, "backbone": "random", "val_split": 0, "out_dir": tmp_path / "out"} | values
    with pytest.raises(InputError, match=message):
        stpm.train(**values)
    assert not (tmp_path / "out").exists()


class StoppedError(Exception):
    """What a program of one's own makes of SIGTERM."""


def test_signals(tmp_path, monkeypatch):
    """After an error they are the caller's again; one that ended a training early is given to whom it was for."""

    def stop(number, frame):
        raise StoppedError

    def fail(*_):
        raise InputError("diverged")

    def send(*_):
        signal.raise_signal(signal.SIGTERM)

    def train():
        stpm.train([picture()] * 2, "random", out_dir=tmp_path, image_size=32, epochs=1, val_split=0)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        for action, error in ((fail, InputError), (send, StoppedError)):
            monkeypatch.setattr(StopOnBadLoss, "on_train_step_end", action)
            with pytest.raises(BaseException) as raised:  # noqa: PT011 - KeyboardInterrupt would end the suite
                train()
            assert raised.type is error
            assert signal.getsignal(signal.SIGTERM) is stop
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("wrong", [5, None])
def test_no_image(tmp_path, wrong):
    """What is no image, nor a list, is told so, and what would be one."""
    detector = Detector.load(write_red_model(tmp_path))
    kind = type(wrong).__name__
    expected = f"image: is of type {kind}; expected a path, a PIL image or a numpy array, or a list of them"
    with pytest.raises(InputError, match=f"^{expected}$"):
        detector.inspect(wrong)
    with pytest.raises(InputError, match=rf"^images\[1\]: .*(None|{kind})"):
        detector.inspect([picture(), wrong])
    for call in (detector.scores, detector.calibrate, lambda images: next(detector.stream(images))):
        with pytest.raises(InputError, match=f"^images: is of type {kind}; expected a folder, or a list of images$"):
            call(wrong)


def test_nothing_slow(exported):
    """With an .onnx neither MindSpore nor torch is imported, nor anything that a small host need not have."""
    code = """
import sys, time
t = time.perf_counter()
import src as stpm
t = time.perf_counter() - t
import numpy as np
found = stpm.Detector.load(sys.argv[1], threshold=1).inspect(np.zeros((90, 90, 3), np.uint8))
found.overlay()
slow = {"mindspore", "torch", "scipy", "sklearn", "matplotlib", "tqdm", "ray", "rich"}
print(found.verdict, slow & sys.modules.keys(), t)
"""
    verdict, slow, seconds = run_python("-c", code, exported / "widget.onnx").stdout.split()
    assert (verdict, slow) == ("good", "set()")
    assert float(seconds) < 0.3


def test_small_host(tmp_path):
    """It scores without MindSpore, scipy, scikit-learn and tqdm; who calibrates is told what to install."""
    model = write_red_model(tmp_path / "model", threshold=0.5)
    for i in range(2):
        save_picture(tmp_path / f"new/{i}.png", np.random.default_rng(i))
    forget_process()  # which wrote the model, and keeps others from it
    code = """
import runpy, sys
sys.modules.update(dict.fromkeys(("mindspore", "scipy", "sklearn", "tqdm")))
sys.stderr.isatty = lambda: True
program = sys.argv.pop(1)
runpy.run_module(f"src.{program}", run_name="__main__")
"""
    flags = ("--ckpt_path", model, "--image_path", tmp_path / "new")
    done = run_python("-c", code, "predict", *flags, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    done = run_python("-c", code, "calibrate", *flags, cwd=tmp_path)
    told = f"this needs scipy, which is not installed: pip install {pinned('scipy')}"
    assert done.stderr == f"error: {tmp_path / 'new'}: cannot set a threshold: {told}\n"
    assert (done.returncode, pinned("scipy")[:7]) == (1, "scipy==")


def test_calibration_without_scipy(tmp_path, monkeypatch):
    """It is said before any image is looked at."""
    monkeypatch.setitem(sys.modules, "scipy", None)
    detector = Detector.load(write_red_model(tmp_path / "model"))
    with pytest.raises(InputError, match="this needs scipy, which is not installed: pip install scipy=="):
        detector.calibrate([tmp_path / "absent.png"] * 2)


def public(thing):
    return {name for name in vars(thing) if not name.startswith("_")}


@pytest.mark.parametrize("page", ["docs/python.md", "docs/zh/python.md"])
def test_documented_names(page):
    """Each public name is in the docs' list, has a docstring, and there is nothing else."""
    names = {"Detector", "Inspection", "InputError", "Region", "train"}
    assert set(dir(stpm)) == set(stpm.__all__) == names | {"__version__"}
    documented = {
        line.split("`")[1].partition("(")[0].removeprefix("stpm.")
        for line in (ROOT / page).read_text().splitlines()
        if line.startswith("| `")
    }
    fields = Detector.__annotations__.keys() | stpm.Inspection.__dataclass_fields__.keys()
    members = {f"Detector.{name}" for name in public(stpm.Detector)}
    members |= {f"Inspection.{name}" for name in public(stpm.Inspection) | fields if not name.startswith("_")}
    members |= {f"Region.{name}" for name in stpm.Region.__dataclass_fields__}
    assert documented == names | members
    for name in names:
        assert getattr(stpm, name).__doc__
    for name in public(stpm.Detector) | {"overlay"}:
        assert getattr(stpm.Detector, name, stpm.Inspection.overlay).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        stpm.Nothing  # noqa: B018


def code_of(page):
    """The page's first block of Python."""
    return re.search(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)[1]


def test_fifteen_lines(folder, random_backbone, monkeypatch, capsys, tmp_path):
    """The docs' first program, word for word, but on small images for one epoch: a line for each picture."""
    code = code_of("docs/python.md")
    assert code == code_of("docs/zh/python.md")
    assert code.count("\n") <= 15
    (folder / "x.png").write_text("no picture")
    for i in range(10):
        save_picture(tmp_path / f"good/{i}.png", np.random.default_rng(i))
    shutil.copy(random_backbone, tmp_path / "resnet18.ckpt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "stpm", stpm)
    monkeypatch.setitem(stpm.train.__kwdefaults__, "image_size", 64)
    monkeypatch.setitem(stpm.train.__kwdefaults__, "epochs", 1)
    exec(compile(code, "docs/python.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    judged = [line.split() for line in lines if re.fullmatch(r"new/[0-4]\.png (good|defective) [0-9.]+", line)]
    assert [line[0] for line in judged] == [f"new/{i}.png" for i in range(5)]
    assert [line for line in lines if line.startswith("unreadable: new/x.png: not a readable image")]
    for i, line in enumerate(judged):
        assert (tmp_path / f"defective_{i}.png").exists() == (line[1] == "defective")


def test_pause(tmp_path):
    """None in a stream: what was taken before comes first, though it is less than a batch."""
    detector = Detector.load(write_red_model(tmp_path))
    taken = []

    def shots():
        for i in range(5):
            taken.append(i)
            yield picture(red=10 * i)
            if i in (0, 3):
                yield None
                taken.append("next")

    stream = detector.stream(shots())
    assert next(stream).score == 0
    assert taken == [0]
    names = [one.name for one in stream]
    assert names == [f"images[{i}]" for i in range(1, 5)]
    assert taken == [0, "next", 1, 2, 3, "next", 4]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_maps_not_finite(value):
    """A number of a map that is none is the error of its image, and ends no stream."""

    def network(images):
        maps = np.ones((len(images), 1, 32, 32), np.float32)
        maps[images[:, 0].max((1, 2)) > 2, 0, 3, 5] = value  # where there is much red
        return maps

    detector = Detector(network, view=square(32), batch_size=2)
    images = [picture(red=red) for red in (0, 255, 0)]
    found = list(detector.stream(images))
    assert [one.error for one in found] == ["", "images[1]: its anomaly map holds NaN or infinity", ""]
    assert [one.score for one in found] == [1, None, 1]
    assert found[1].anomaly_map is found[1].image is None
    with pytest.raises(InputError, match=r"^images\[1\]: its anomaly map holds NaN or infinity$"):
        detector.inspect(images)
    with pytest.raises(
        InputError, match=r"^the model: computes maps that hold NaN or infinity; its weights are no good"
    ):
        detector.anomaly_maps(np.stack([np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)]))


def test_notebook(tmp_path):
    """The tour runs to its end, bears no outputs, and calls its washers what they are."""
    if not (find_spec("nbclient") and find_spec("ipykernel")):
        missing("nbclient or ipykernel is not installed")
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "docs/tour.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages/stpm").symlink_to(ROOT / "src")  # as it is installed
    environment = user_environment(PYTHONPATH=str(tmp_path / "packages"), HOME=str(tmp_path))
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env=environment)
    assert any("image/png" in output.get("data", ()) for cell in code for output in cell.outputs)
    outputs = {cell.id: cell.outputs for cell in code}
    assert "verdict='defective'" in outputs["inspect"][0].data["text/plain"]
    text = "".join(output.text for output in outputs["stream"])
    told = [line.rpartition(" ")[0] for line in text.splitlines()]
    assert told == ["images[0] good", "images[1] good", "images[2] good", "images[3] defective"]
    assert (tmp_path / "tour/product_last.ckpt").exists()
