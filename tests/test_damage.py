"""The damage table: everything that the product reads, in every way that it can be wrong.

A row names the input, how it is wrong, the entry point that reads it, the damage done to a sound scene, and words of
the one-line message. Every row is also held to this: exit status 1 or 2, no traceback, and every file of the scene,
earlier outputs among them, as it was, with none beside them.
"""

import contextlib
import json
import os
import shutil
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

import export
import postprocess
import preprocess
import test as evaluate
import train
from src import calibrate, demo_data, predict, pth2ckpt
from src import dataset as dataset_entry
from src.data.view import square
from src.exchange.manifest import read_manifest
from src.files import write_json
from src.model import sidecar
from src.model.sidecar import describe_file, new_sidecar
from src.report import page as report
from src.report import table as results_table
from src.sweep import __main__ as sweep
from src.utils import run_entry_point
from tests.conftest import make_tree
from tests.damage import (
    another_user,
    contents,
    copy,
    cut,
    deny,
    edit,
    empty,
    flip,
    float_map,
    folder,
    full_disk,
    loop,
    picture,
    pipe,
    png_header,
    put,
    read_only,
    remove,
    replace,
    shorten,
)
from tests.test_scripts import run_script

SIZE = 64
DATA, OUT, INPUTS, MAPS = "data", "out", "inputs", "maps"
TRAIN, TEST, TRUTH = "data/widget/train/good", "data/widget/test", "data/widget/ground_truth"
IMAGE, MASK = f"{TEST}/hole/000.png", f"{TRUTH}/hole/000_mask.png"
TEACHER, MODEL, MODEL_JSON, EXPORTED, EXPORTED_JSON = (
    *("teacher.ckpt", "model/widget_last.ckpt", "model/widget_last.json"),
    *("exported/widget.mindir", "exported/widget.json"),
)
PTH, MANIFEST, BIN, MAP = (
    "weights.pth",
    f"{INPUTS}/manifest.json",
    f"{INPUTS}/00002_hole_000.bin",
    f"{MAPS}/00002_hole_000_0.bin",
)
ORIGIN = f"{MAPS}/origin.json"
RESULTS, TABLE = "reports/widget/results.json", "docs/results.json"
WIDGET = ("--category", "widget")

COMMANDS = {
    "train": (train, "--data_url", DATA, "--pre_ckpt_path", TEACHER, "--train_url", OUT, *WIDGET, "--image_size", SIZE,
              "--device_target", "CPU"),
    "test": (evaluate, "--eval_url", DATA, "--ckpt_path", MODEL, "--out_dir", OUT, *WIDGET),
    "test.mindir": (evaluate, "--eval_url", DATA, "--ckpt_path", EXPORTED, "--out_dir", OUT, *WIDGET),
    "export": (export, "--ckpt_file", MODEL, "--out_dir", OUT, *WIDGET),
    "preprocess": (preprocess, "--data_dir", DATA, "--img_dir", INPUTS, *WIDGET, "--image_size", SIZE),
    "preprocess --check": (preprocess, "--data_dir", DATA, "--img_dir", INPUTS, *WIDGET, "--image_size", SIZE,
                           "--check"),
    "postprocess": (postprocess, "--data_dir", DATA, "--label_dir", INPUTS, "--result_dir", MAPS, "--out_dir", OUT,
                    *WIDGET),
    "unlabelled": (postprocess, "--data_dir", "new", "--label_dir", "new_inputs", "--result_dir", "new_maps",
                   "--out_dir", OUT, *WIDGET),
    "predict": (predict, "--image_path", f"{TEST}/hole", "--ckpt_path", MODEL, "--out_dir", OUT),
    "calibrate": (calibrate, "--image_path", TRAIN, "--ckpt_path", MODEL, *WIDGET),
    "pth2ckpt": (pth2ckpt, "--pth_path", PTH, "--ckpt_path", f"{OUT}/new.ckpt"),
    "sidecar": (sidecar, "--mindir_path", EXPORTED, *WIDGET),
    "sweep": (sweep, "--data_url", DATA, "--pre_ckpt_path", TEACHER, "--train_url", OUT, "--device_num", 1),
    "report --index": (report, "--index", "reports"),
    "results_table": (results_table, "--results", TABLE, "--readme", "README.md"),
    "dataset --check": (dataset_entry, "--check", DATA),
    "demo_data": (demo_data, "--out_dir", OUT),
}  # fmt: skip


def make_scene(place):
    """All that the entry points read, sound as far as it is looked at before a network is loaded."""
    make_tree(place / DATA)
    for name in (TEACHER, MODEL, EXPORTED, PTH):
        put(name, f"weights of {name}")(place)
    about = new_sidecar(category="widget", view=square(SIZE), config={}).to_json()
    origin = describe_file(place / MODEL)
    write_json(place / MODEL_JSON, about | {"checkpoint": origin})
    facts = {"sha256": describe_file(place / EXPORTED)["sha256"], "batch_size": 1}
    write_json(place / EXPORTED_JSON, about | {"checkpoint": origin, "exports": {"widget.mindir": facts}})
    copy(f"{TEST}/hole", "new")(place)
    for data, inputs, maps in ((DATA, INPUTS, MAPS), ("new", "new_inputs", "new_maps")):
        run = ("--data_dir", place / data, "--img_dir", place / inputs, *WIDGET, "--image_size", SIZE)
        assert preprocess.main(preprocess.parse_args([str(word) for word in run])) == 0
        names = read_manifest(place / inputs).names
        for name in names:
            put(f"{maps}/{name}_0.bin", float_map(SIZE, 2))(place)
        put(f"{maps}/scores.csv", "input,milliseconds\n" + "".join(f"{name}.bin,1.5\n" for name in names))(place)
        manifest = (place / inputs / "manifest.json").read_bytes()
        mark = {"bytes": len(manifest), "crc32": zlib.crc32(manifest)}
        write_json(place / maps / "origin.json", {"format": 1, "manifest": mark, "model": mark})
    for name in ("widget/results.json", "widget/widget_last.ckpt", "results.json", "scores.csv", "new.ckpt"):
        put(f"{OUT}/{name}", "of an earlier run")(place)
    metrics = {"pixel_auroc": 0.9, "image_auroc": 1, "pro": None}
    put("reports/widget/report.html", "")(place)
    write_json(place / RESULTS, metrics)
    put(TABLE, json.dumps({"categories": {"bottle": metrics}}))(place)
    put("README.md", "<!-- results: begin -->\n\n| a |\n| --- |\n\n<!-- results: end -->\n")(place)


@pytest.fixture(scope="session")
def sound_scene(tmp_path_factory):
    place = tmp_path_factory.mktemp("scene") / "scene"
    make_scene(place)
    for path in [place, *place.rglob("*")]:
        path.chmod(0o777 if path.is_dir() else 0o666)
    return place


def new_folder():
    """A folder for copies of scenes; not below pytest's own, which is closed to other users."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # hundreds of copies: spare the disk
    folder = Path(tempfile.mkdtemp(prefix="stpm damage ", dir=memory))
    folder.chmod(0o755)
    return folder


@pytest.fixture
def place(sound_scene, monkeypatch):
    """A copy of the scene, and the working folder."""
    outer = new_folder()
    try:
        monkeypatch.chdir(shutil.copytree(sound_scene, outer / "scene"))
        yield outer / "scene"
    finally:
        os.chdir("/")
        for root, folders, _ in os.walk(outer):
            for name in folders:
                os.chmod(os.path.join(root, name), 0o777)
        shutil.rmtree(outer)


def check_refusal(refused, place, entry, words, *, flags=(), circumstances=None):
    module, *arguments = COMMANDS[entry]
    before = contents(place)
    with circumstances or contextlib.nullcontext():
        message = refused(module, *arguments, *flags)
    assert words in message
    assert message.startswith("error: ") or ": error: " in message  # argparse's
    assert contents(place) == before


HUGE = png_header(30000, 30000)
DEEP = "[" * 100_000
GREY = np.full((40, 48), 200, np.uint8)
TURNED = Image.Exif()
TURNED[ExifTags.Base.Orientation] = 6  # to be turned by 90 degrees

FILES = [
    # image
    ("image", "empty", "preprocess", put(IMAGE, ""), "hole/000.png: not a readable image"),
    ("image", "truncated", "preprocess", cut(IMAGE), "hole/000.png: not a readable image"),
    ("image", "truncated", "train", cut(f"{TRAIN}/003.png"),
     "003.png: not a readable image: truncated: its end is missing; python -m src.dataset --check data lists all such"),
    ("image", "one bit flipped", "preprocess", flip(IMAGE), "hole/000.png: not a readable image"),
    ("image", "its end missing", "preprocess", shorten(IMAGE, 12), "hole/000.png: not a readable image: truncated"),
    ("image", "text", "postprocess", put(MASK, "x"), "hole/000_mask.png: not a readable image"),
    ("image", "PostScript", "preprocess", put(IMAGE, "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
     "not a readable"),
    ("image", "GIF", "preprocess", picture(IMAGE, GREY, format="GIF"), "hole/000.png: not a readable image"),
    ("image", "NaN inside", "preprocess", picture(IMAGE, np.full((9, 9), np.nan, np.float32), format="TIFF"),
     "hole/000.png: not a readable image: its pixels are floating-point numbers"),
    ("image", "32-bit", "preprocess", picture(IMAGE, GREY.astype(np.int32), format="TIFF"),
     "hole/000.png: not a readable image: its pixels are signed numbers of 32 bits; expected unsigned ones of 8 or 16"),
    ("image", "of two pages", "train",
     picture(f"{TRAIN}/003.png", GREY, format="TIFF", save_all=True, append_images=[Image.fromarray(GREY)]),
     "good/003.png: not a readable image: holds 2 pages or frames; expected one"),
    ("image", "30,000 x 30,000", "preprocess", put(IMAGE, HUGE),
     "hole/000.png: has 30000 x 30000 pixels, more than 179 million; if it is not damaged, set STPM_MAX_PIXELS=9000"),
    ("image", "permission denied", "preprocess", deny(IMAGE), "hole/000.png: cannot be read: Permission denied"),
    ("image", "permission denied", "train", deny(f"{TRAIN}/003.png"), "good/003.png: cannot be read: Permission"),
    ("image", "link to itself", "preprocess", loop(IMAGE), "hole/000.png: cannot be read: Too many levels"),
    ("image", "folder of its name", "preprocess", folder(IMAGE), "hole/000.png: cannot be read: Is a directory"),
    ("image", "pipe", "preprocess", pipe(IMAGE), "hole/000.png: cannot be read: Is a pipe"),
    ("image", "pipe", "train", pipe(f"{TRAIN}/003.png"), "good/003.png: cannot be read: Is a pipe"),
    ("image", "two of one stem", "preprocess", copy(IMAGE, f"{TEST}/hole/000.bmp"), "same stem as 000.bmp"),
    ("image", "two of one stem", "train", copy(f"{TRAIN}/000.png", f"{TRAIN}/000.JPG"), "has the same stem as 000.JPG"),
    # mask
    ("mask", "missing", "postprocess", remove(MASK), "ground_truth/hole: no mask for"),
    ("mask", "extra", "test", copy(MASK, f"{TRUTH}/hole/007_mask.png"), "007_mask.png: extra mask"),
    ("mask", "two for one image", "test", copy(MASK, f"{TRUTH}/hole/000.png"), "second mask for one image"),
    ("mask", "truncated", "postprocess", cut(MASK), "hole/000_mask.png: not a readable image"),
    ("mask", "of 0 and 1", "postprocess", picture(MASK, GREY // 200),
     "000_mask.png: marks nothing: its brightest pixel is 1"),
    ("mask", "of another size", "postprocess", picture(MASK, GREY[:20]),
     "000_mask.png: is 48 x 20 pixels, its image"),
    ("mask", "turned, its image not", "postprocess", picture(MASK, GREY, exif=TURNED),
     f"000_mask.png: is 40 x 48 pixels, its image {IMAGE} is 48 x 40"),
    ("mask", "30,000 x 30,000", "postprocess", put(MASK, HUGE),
     "hole/000_mask.png: has 30000 x 30000 pixels, more than 179 million"),
    ("mask", "permission denied", "postprocess", deny(MASK), "hole/000_mask.png: cannot be read: Permission denied"),
    ("mask", "link to itself", "postprocess", loop(MASK), "hole/000_mask.png: cannot be read: Too many levels"),
    ("mask", "folder of its name", "postprocess", folder(MASK), "hole/000_mask.png: cannot be read: Is a directory"),
    ("mask", "pipe", "postprocess", pipe(MASK), "hole/000_mask.png: cannot be read: Is a pipe"),
    ("mask", "folder of no defect type", "test", copy(f"{TRUTH}/hole", f"{TRUTH}/crack"),
     "ground_truth/crack: extra masks"),
    ("mask", "of good images", "postprocess", copy(f"{TRUTH}/hole", f"{TRUTH}/good"),
     "ground_truth/good/000_mask.png: marks pixels of a good image"),
    # folder
    ("data set", "missing", "train", remove(DATA), "data: no such data set folder"),
    ("data set", "a file", "train", put(DATA, "x"), "data: no such data set folder"),
    ("data set", "link to itself", "train", loop(DATA), "data: no such data set folder"),
    ("data set", "link to itself", "sweep", loop(DATA), "data: no such data set folder"),
    ("data set", "permission denied", "train", deny(DATA), "data: cannot be listed: Permission denied"),
    ("data set", "without categories", "sweep", remove(f"{DATA}/widget"), "data: holds no category"),
    ("data set", "without categories", "dataset --check", remove(f"{DATA}/widget"), "data: holds no category"),
    ("data set", "categories that differ in case", "sweep", copy("data/widget", "data/Widget"),
     "categories 'Widget' and 'widget' differ only in case"),
    ("category", "missing", "train", remove("data/widget"), "data: no category 'widget'; found: none"),
    ("category", "train empty", "train", empty(TRAIN), "widget/train/good: holds no image"),
    ("category", "train permission denied", "train", deny(TRAIN),
     "widget/train/good: cannot be listed: Permission denied"),
    ("category", "test missing", "test", remove(TEST), "widget/test: no such folder"),
    ("category", "test permission denied", "test", deny(TEST), "widget/test: cannot be listed: Permission denied"),
    ("category", "a defect type called unlabelled", "preprocess", copy(f"{TEST}/hole", f"{TEST}/unlabelled"),
     "test/unlabelled: this name stands for images without labels"),
    ("category", "defect type empty", "test", empty(f"{TEST}/hole"), "test/hole: holds no image"),
    ("pictures", "missing", "predict", remove(f"{TEST}/hole"), "test/hole: no such image or folder of images"),
    ("pictures", "link to itself", "predict", loop(f"{TEST}/hole"), "test/hole: no such image or folder of images"),
    ("pictures", "none", "predict", empty(f"{TEST}/hole"), "test/hole: holds no image"),
    ("pictures", "permission denied", "predict", deny(f"{TEST}/hole"),
     "test/hole: cannot be listed: Permission denied"),
    # .pth
    (".pth", "missing", "pth2ckpt", remove(PTH), "weights.pth: no such PyTorch file"),
    (".pth", "empty", "pth2ckpt", put(PTH, ""), "weights.pth: is empty, not a PyTorch"),
    (".pth", "text", "pth2ckpt", put(PTH, "weights"), "weights.pth: not a readable file of PyTorch weights"),
    (".pth", "folder", "pth2ckpt", folder(PTH), "weights.pth: no such PyTorch file"),
    (".pth", "pipe", "pth2ckpt", pipe(PTH), "weights.pth: no such PyTorch file"),
    (".pth", "link to itself", "pth2ckpt", loop(PTH), "weights.pth: no such PyTorch file"),
    (".pth", "permission denied", "pth2ckpt", deny(PTH), "weights.pth: cannot be read: Permission denied"),
    # .ckpt
    ("teacher", "missing", "train", remove(TEACHER), "teacher.ckpt: no such checkpoint file"),
    ("teacher", "empty", "train", put(TEACHER, ""), "teacher.ckpt: is empty, not a checkpoint"),
    ("teacher", "empty", "sweep", put(TEACHER, ""), "teacher.ckpt: is empty, not a checkpoint"),
    ("teacher", "text", "train", put(TEACHER, b"\xff\xfehello" * 100),
     "teacher.ckpt: not a readable MindSpore checkpoint"),
    ("teacher", "folder", "train", folder(TEACHER), "teacher.ckpt: no such checkpoint file"),
    ("teacher", "pipe", "train", pipe(TEACHER), "teacher.ckpt: no such checkpoint file"),
    ("teacher", "link to itself", "sweep", loop(TEACHER), "teacher.ckpt: no such checkpoint file"),
    ("teacher", "permission denied", "train", deny(TEACHER), "teacher.ckpt: cannot be read: Permission denied"),
    ("checkpoint", "missing", "test", remove(MODEL), "widget_last.ckpt: no such checkpoint file"),
    ("checkpoint", "missing", "export", remove(MODEL), "widget_last.ckpt: no such checkpoint file"),
    ("checkpoint", "empty", "predict", put(MODEL, ""), "widget_last.ckpt: is empty, not a checkpoint"),
    ("checkpoint", "truncated", "test", cut(MODEL), "widget_last.ckpt: is damaged, or is not the checkpoint that"),
    ("checkpoint", "one bit flipped", "test", flip(MODEL),
     "widget_last.ckpt: is damaged, or is not the checkpoint that"),
    ("checkpoint", "another's", "export", copy(TEACHER, MODEL),
     "widget_last.ckpt: is damaged, or is not the checkpoint that"),
    ("checkpoint", "no checkpoint", "predict", remove(MODEL_JSON),
     "widget_last.ckpt: not a readable MindSpore checkpoint"),
    ("checkpoint", "folder", "calibrate", folder(MODEL), "widget_last.ckpt: no such checkpoint file"),
    ("checkpoint", "pipe", "test", pipe(MODEL), "widget_last.ckpt: no such checkpoint file"),
    ("checkpoint", "link to itself", "export", loop(MODEL), "widget_last.ckpt: no such checkpoint file"),
    ("checkpoint", "permission denied", "predict", deny(MODEL), "widget_last.ckpt: cannot be read: Permission denied"),
    # .mindir (.onnx goes the same way, and through test_export.py)
    (".mindir", "missing", "sidecar", remove(EXPORTED), "widget.mindir: cannot be read: No such file"),
    (".mindir", "missing", "test.mindir", remove(EXPORTED), "widget.mindir: no such MINDIR file"),
    (".mindir", "empty", "test.mindir", put(EXPORTED, ""), "widget.mindir: is empty, not a MINDIR"),
    (".mindir", "truncated", "test.mindir", cut(EXPORTED), "widget.mindir: is damaged, or is not the file"),
    (".mindir", "one bit flipped", "sidecar", flip(EXPORTED), "widget.mindir: is damaged, or is not the file"),
    (".mindir", "folder", "sidecar", folder(EXPORTED), "widget.mindir: cannot be read: Is a directory"),
    (".mindir", "pipe", "sidecar", pipe(EXPORTED), "widget.mindir: cannot be read: Is a pipe"),
    (".mindir", "link to itself", "test.mindir", loop(EXPORTED), "widget.mindir: no such MINDIR file"),
    (".mindir", "permission denied", "test.mindir", deny(EXPORTED), "widget.mindir: cannot be read: Permission denied"),
    (".mindir", "no MINDIR", "test.mindir", lambda place: None, "widget.mindir: not a MINDIR that MindSpore"),
    # model JSON
    ("model JSON", "missing", "calibrate", remove(MODEL_JSON),
     "widget_last.json: is missing; the threshold is kept in it"),
    ("model JSON", "missing", "sidecar", remove(EXPORTED_JSON), "widget.json: is missing; export.py writes it"),
    ("model JSON", "empty", "test", put(MODEL_JSON, ""), "widget_last.json: not valid JSON"),
    ("model JSON", "truncated", "test", cut(MODEL_JSON), "widget_last.json: not valid JSON"),
    ("model JSON", "a list", "export", put(MODEL_JSON, "[1]"), "widget_last.json: expected a JSON object, found list"),
    ("model JSON", "nested without end", "test", put(MODEL_JSON, DEEP), "widget_last.json: not valid JSON"),
    ("model JSON", "no text", "test", put(MODEL_JSON, b"\xff\xfe{}"), "widget_last.json: not valid JSON"),
    ("model JSON", "NaN inside", "test", edit(MODEL_JSON, threshold=float("nan")), "not valid JSON: NaN is no JSON"),
    ("model JSON", "infinity inside", "test", replace(MODEL_JSON, '"threshold": null', '"threshold": 1e999'),
     "threshold inf"),
    ("model JSON", "a key twice", "test", replace(MODEL_JSON, '"format": 1', '"format": 1, "format": 1'),
     "'format' stands twice"),
    ("model JSON", "other version", "predict", edit(MODEL_JSON, format=2), "format 2, this program reads format 1"),
    ("model JSON", "another category", "test", edit(MODEL_JSON, category="nut"), "was trained on 'nut'"),
    ("model JSON", "another category", "sidecar", edit(EXPORTED_JSON, category="nut"), "was trained on 'nut'"),
    ("model JSON", "odd image size", "test", edit(MODEL_JSON, image_size=100),
     "image_size 100, expected a multiple of 16"),
    ("model JSON", "huge image size", "test", edit(MODEL_JSON, image_size=16 << 40), "expected a multiple of 16"),
    ("model JSON", "image size a text", "predict", edit(MODEL_JSON, image_size="64"), "image_size '64', expected"),
    ("model JSON", "other preprocessing", "test", replace(MODEL_JSON, "LANCZOS", "BICUBIC"), "this program's is"),
    ("model JSON", "threshold a text", "predict", edit(MODEL_JSON, threshold="abc"),
     "threshold 'abc', expected null or a"),
    ("model JSON", "threshold negative", "sidecar", edit(EXPORTED_JSON, threshold=-1),
     "threshold -1, expected null or a"),
    ("model JSON", "threshold 0", "test", edit(MODEL_JSON, threshold=0), "threshold 0, expected null or a number"),
    ("model JSON", "threshold true", "test", edit(MODEL_JSON, threshold=True), "threshold True, expected null or a"),
    ("model JSON", "without threshold", "test", replace(MODEL_JSON, '"threshold"', '"thresh"'), "threshold is missing"),
    ("model JSON", "without hash", "test", replace(MODEL_JSON, '"config_hash"', '"hash"'), "config_hash is missing"),
    ("model JSON", "hash a number", "test", edit(MODEL_JSON, config_hash=1),
     "config_hash 1, expected null or a string"),
    ("model JSON", "checkpoint a text", "test", edit(MODEL_JSON, checkpoint="x"), "is not the checkpoint that"),
    ("model JSON", "exports a list", "sidecar", edit(EXPORTED_JSON, exports=[]), "exports [], expected an object"),
    ("model JSON", "export a text", "sidecar", edit(EXPORTED_JSON, exports={"widget.mindir": "x"}),
     "expected an object"),
    ("model JSON", "export of another", "sidecar", edit(EXPORTED_JSON, exports={}), "does not describe widget.mindir"),
    ("model JSON", "batch size a text", "test.mindir", replace(EXPORTED_JSON, '_size": 1', '_size": "4"'),
     "batch_size '4'"),
    ("model JSON", "batch size 0", "test.mindir", replace(EXPORTED_JSON, '_size": 1', '_size": 0'),
     "batch_size 0, expected"),
    ("model JSON", "folder", "test", folder(MODEL_JSON), "widget_last.json: cannot be read: Is a directory"),
    ("model JSON", "pipe", "test", pipe(MODEL_JSON), "widget_last.json: cannot be read: Is a pipe"),
    ("model JSON", "link to itself", "test", loop(MODEL_JSON), "widget_last.json: cannot be read: Too many levels"),
    ("model JSON", "permission denied", "test", deny(MODEL_JSON),
     "widget_last.json: cannot be read: Permission denied"),
    # manifest
    ("manifest", "missing", "postprocess", remove(MANIFEST), "manifest.json: is missing; preprocess.py writes it"),
    ("manifest", "empty", "preprocess --check", put(MANIFEST, ""), "manifest.json: not valid JSON"),
    ("manifest", "truncated", "preprocess", cut(MANIFEST), "manifest.json: not valid JSON"),
    ("manifest", "other version", "postprocess", edit(MANIFEST, format=2), "format 2, this program reads format 1"),
    ("manifest", "other preprocessing", "postprocess", edit(MANIFEST, preprocessing={}),
     "preprocessing {}, this program's"),
    ("manifest", "another category", "postprocess", edit(MANIFEST, category="nut"), "was made for category 'nut'"),
    ("manifest", "image size a text", "postprocess", edit(MANIFEST, image_size="64"), "image_size '64'"),
    ("manifest", "image size negative", "postprocess", edit(MANIFEST, image_size=-64),
     "image_size -64, expected a multiple"),
    ("manifest", "images a number", "postprocess", edit(MANIFEST, images=3), "manifest.json: is damaged"),
    ("manifest", "images of texts", "postprocess", edit(MANIFEST, images=["x"]), "manifest.json: is damaged"),
    ("manifest", "no images", "postprocess", edit(MANIFEST, images=[]), "was made from other test images"),
    ("manifest", "an image twice", "postprocess", replace(MANIFEST, "00003_hole_001", "00002_hole_000"),
     "other test images"),
    ("manifest", "labels missing", "postprocess", replace(MANIFEST, '"label": 1', '"label": null'),
     "was made from other test images"),
    ("manifest", "path as name", "preprocess", replace(MANIFEST, "00003_hole_001", "../../x"), "not a plain file name"),
    ("manifest", "path as name", "postprocess", replace(MANIFEST, "00003_hole_001", "/etc/x"), "not a plain file name"),
    ("manifest", "path as source", "unlabelled", replace("new_inputs/manifest.json", '"000.png"', '"../x"'),
     "other test images"),
    ("manifest", "unfinished", "postprocess", replace(MANIFEST, "true", "false"), "did not finish; run it again"),
    ("manifest", "folder", "postprocess", folder(MANIFEST), "manifest.json: cannot be read: Is a directory"),
    ("manifest", "pipe", "postprocess", pipe(MANIFEST), "manifest.json: cannot be read: Is a pipe"),
    ("manifest", "link to itself", "postprocess", loop(MANIFEST), "manifest.json: cannot be read: Too many levels"),
    ("manifest", "link to itself", "preprocess", loop(MANIFEST), "manifest.json: cannot be read: Too many levels"),
    ("manifest", "permission denied", "postprocess", deny(MANIFEST),
     "manifest.json: cannot be read: Permission denied"),
    # .bin
    ("input .bin", "missing", "preprocess --check", remove(BIN), "00002_hole_000.bin: is missing"),
    ("input .bin", "truncated", "preprocess --check", cut(BIN),
     "00002_hole_000.bin: holds 24576 bytes, expected 49152"),
    ("input .bin", "one bit flipped", "preprocess --check", flip(BIN), "000.bin: is damaged, or preprocess.py did"),
    ("input .bin", "foreign", "preprocess", put(f"{INPUTS}/mine.bin", "x"),
     "mine.bin: was not written by preprocess.py"),
    ("input .bin", "folder", "preprocess --check", folder(BIN), "00002_hole_000.bin: holds"),
    ("input .bin", "pipe", "preprocess --check", pipe(BIN), "00002_hole_000.bin: holds"),
    ("map .bin", "missing", "postprocess", remove(MAP), "00002_hole_000_0.bin: is missing"),
    ("map .bin", "empty", "postprocess", put(MAP, ""), "00002_hole_000_0.bin: holds 0 bytes, expected 16384"),
    ("map .bin", "truncated", "unlabelled", cut("new_maps/00000_unlabelled_000_0.bin"),
     "holds 8192 bytes, expected 16384"),
    ("map .bin", "foreign", "postprocess", put(f"{MAPS}/x_0.bin", "x"), "x_0.bin: is not in the manifest"),
    ("map .bin", "NaN inside", "postprocess", put(MAP, float_map(SIZE, np.nan)),
     "000_0.bin: the map holds NaN or infinity"),
    ("map .bin", "infinity inside", "unlabelled", put("new_maps/00001_unlabelled_001_0.bin", float_map(SIZE, np.inf)),
     "001_0.bin: the map holds NaN or infinity"),
    ("map .bin", "folder", "postprocess", folder(MAP), "00002_hole_000_0.bin"),
    ("map .bin", "pipe", "postprocess", pipe(MAP), "00002_hole_000_0.bin"),
    ("map .bin", "link to itself", "postprocess", loop(MAP), "00002_hole_000_0.bin: "),
    ("map .bin", "permission denied", "postprocess", deny(MAP), "00002_hole_000_0.bin: Permission denied"),
    ("maps", "folder missing", "postprocess", remove(MAPS), "maps: no such folder"),
    ("maps", "folder denied", "postprocess", deny(MAPS), "maps/00000_good_000_0.bin: "),
    ("times", "missing", "unlabelled", remove("new_maps/scores.csv"), "scores.csv: cannot be read"),
    ("times", "pipe", "unlabelled", pipe("new_maps/scores.csv"), "scores.csv: cannot be read: Is a pipe"),
    ("times", "of other images", "unlabelled", copy(f"{MAPS}/scores.csv", "new_maps/scores.csv"),
     "does not match the manifest"),
    ("times", "NaN inside", "unlabelled", replace("new_maps/scores.csv", "000.bin,1.5", "000.bin,nan"),
     "time is not finite"),
    ("times", "no number", "unlabelled", replace("new_maps/scores.csv", "000.bin,1.5", "000.bin,fast"),
     "does not match"),
    ("times", "NUL inside", "unlabelled", put("new_maps/scores.csv", b"input,milliseconds\n\0,1\n"), "does not match"),
    ("origin", "empty", "postprocess", put(ORIGIN, ""), "origin.json: not valid JSON"),
    ("origin", "no object", "postprocess", put(ORIGIN, "3"), "origin.json: expected a JSON object"),
    ("origin", "of another run", "postprocess", put(ORIGIN, '{"format": 1}'),
     "maps are not of the inputs that inputs holds now"),
    ("origin", "other version", "postprocess", edit(ORIGIN, format=2), "format 2, this program reads format 1"),
    ("origin", "of other inputs", "postprocess", replace(ORIGIN, '"crc32": ', '"crc32": 1'),
     "maps are not of the inputs that inputs holds now"),
    ("origin", "folder", "unlabelled", folder("new_maps/origin.json"), "origin.json: cannot be read: Is a directory"),
    ("origin", "link to itself", "unlabelled", loop("new_maps/origin.json"),
     "origin.json: cannot be read: Too many levels"),
    # results of earlier runs
    ("results.json", "missing", "report --index", remove(RESULTS), "results.json: cannot be read: No such file"),
    ("results.json", "truncated", "report --index", cut(RESULTS), "results.json: not valid JSON"),
    ("results.json", "without a metric", "report --index", put(RESULTS, "{}"),
     "pixel_auroc 'nothing', expected a number"),
    ("results.json", "a metric a text", "report --index", edit(RESULTS, pro="abc"),
     "pro 'abc', expected a number from 0 to 1"),
    ("results.json", "a metric of 2", "report --index", edit(RESULTS, image_auroc=2),
     "image_auroc 2, expected a number from"),
    ("results.json", "a decision a text", "report --index", edit(RESULTS, decision="x"), "decision 'x' is damaged"),
    ("results.json", "without categories", "results_table", put(TABLE, "{}"), "expected an object 'categories'"),
    ("results.json", "categories of numbers", "results_table", put(TABLE, '{"categories": {"bottle": 3}}'),
     "results.json: expected an object 'categories', of category to an object of metrics"),
    ("results.json", "a category's metric a text", "results_table",
     put(TABLE, '{"categories": {"bottle": {"pixel_auroc": "x"}}}'),
     "results.json: bottle: pixel_auroc 'x', expected a number from 0 to 1"),
    ("results.json", "a category's metric in per cent", "results_table",
     put(TABLE, '{"categories": {"bottle": {"pro": 98.8}}}'),
     "results.json: bottle: pro 98.8, expected a number from 0 to 1"),
    ("README", "no text", "results_table", put("README.md", b"\xff\xfe"), "README.md: is not UTF-8 text: "),
    ("README", "missing", "results_table", remove("README.md"), "README.md: No such file or directory"),
    ("README", "without marks", "results_table", put("README.md", "text"), "README.md: has no lines <!-- results: beg"),
    ("reports", "none", "report --index", remove("reports"), "reports: holds no <category>/report.html"),
]  # fmt: skip


# What every entry point makes of the scene as it is: the file that it changes, if any, or words of the one thing that
# is wrong there, that no runtime can read the weights. What can be wrong before is not.
SOUND = {
    "train": "teacher.ckpt: not a readable MindSpore checkpoint",
    "test": "widget_last.ckpt: not a readable MindSpore checkpoint",
    "test.mindir": "widget.mindir: not a MINDIR that MindSpore",
    "export": "widget_last.ckpt: not a readable MindSpore checkpoint",
    "predict": "widget_last.ckpt: not a readable MindSpore checkpoint",
    "calibrate": "widget_last.ckpt: not a readable MindSpore checkpoint",
    "pth2ckpt": "weights.pth: not a readable file of PyTorch weights",
    "sweep": "RAY_ADDRESS 127.0.0.1:1: cannot be joined",
    "preprocess": None,  # it writes what is there already
    "preprocess --check": None,
    "postprocess": Path(OUT, "results.json"),
    "unlabelled": Path(OUT, "scores.csv"),
    "sidecar": None,
    "report --index": Path("reports/report.html"),
    "results_table": Path("README.md"),
    "dataset --check": None,
}


@pytest.mark.parametrize("entry", SOUND)
def test_sound_input(refused, place, monkeypatch, entry):
    """Nothing is refused before something is damaged, else the rows below would prove nothing."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    if isinstance(SOUND[entry], str):
        check_refusal(refused, place, entry, SOUND[entry])
        return
    module, *arguments = COMMANDS[entry]
    before = contents(place)
    assert run_entry_point(module.main, module.parse_args([str(word) for word in arguments])) == 0
    after = contents(place)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed == ({str(SOUND[entry])} if SOUND[entry] else set())


def named(rows):
    """The rows as parameters, called after their texts."""
    return [pytest.param(*row, id=", ".join(row[:3])) for row in rows]


@pytest.mark.parametrize(("what", "wrong", "entry", "damage", "words"), named(FILES))
def test_damaged_input(refused, place, what, wrong, entry, damage, words):
    damage(place)
    check_refusal(refused, place, entry, words, circumstances=another_user() if "denied" in wrong else None)


def at(path):
    """Where the entry points of this scene write."""
    return {OUT: ("predict", "postprocess", "unlabelled", "export", "pth2ckpt", "sweep", "demo_data"),
            f"{OUT}/widget": ("train", "test"), INPUTS: ("preprocess",), "model": ("calibrate",)}[path]  # fmt: skip


OUTPUTS = [
    # every entry point that writes into a folder that is read-only, a file, or a link to itself
    *((path, "read-only", entry, read_only(path), "output folder is not writable")
      for path in (OUT, f"{OUT}/widget", INPUTS, "model") for entry in at(path)),
    *((path, "a file", entry, put(path, "x"), f"{path}: cannot be created as output folder")
      for path in (OUT, f"{OUT}/widget", INPUTS) for entry in at(path)),
    *((path, "link to itself", entry, loop(path), f"{path}: cannot be created as output folder")
      for path in (OUT, f"{OUT}/widget", INPUTS) for entry in at(path)),
    ("report", "read-only", "report --index", read_only("reports"),
     "report.html: cannot be written: Permission denied"),
    ("results.json", "a folder", "postprocess", folder(f"{OUT}/results.json"),
     "results.json: cannot be written: Is a dir"),
    ("scores.csv", "a folder", "unlabelled", folder(f"{OUT}/scores.csv"),
     "scores.csv: cannot be written: Is a directory"),
    ("lock", "a folder", "train", folder(f"{OUT}/widget/.train.lock"),
     ".train.lock: cannot be written: Is a directory"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "wrong", "entry", "damage", "words"), named(OUTPUTS))
def test_unwritable_output(refused, place, what, wrong, entry, damage, words):
    """It is refused before anything is computed, and what stands there stays."""
    damage(place)
    check_refusal(refused, place, entry, words, circumstances=another_user() if wrong == "read-only" else None)


FULL_DISKS = [
    # entry point, bytes that fit
    ("preprocess", 4000, "_000.bin: cannot be written"),
    ("postprocess", 1000, "out/results.json: cannot be written: File too large"),
    ("unlabelled", 40, "out/scores.csv: cannot be written: File too large"),
    ("report --index", 1000, "reports/report.html: cannot be written: File too large"),
    ("demo_data", 1000, "out/washer: cannot be written: File too large"),
]


@pytest.mark.parametrize(("entry", "size", "words"), FULL_DISKS, ids=lambda value: str(value))
def test_full_disk(refused, place, entry, size, words):
    check_refusal(refused, place, entry, words, circumstances=full_disk(size))


FLAGS = [
    ("train", ("--lr", "nan"), "--lr: expected a number above 0, got 'nan'"),
    ("train", ("--lr", "inf"), "--lr: expected a number of at most 3.4e+38, got 'inf'"),
    ("train", ("--lr", ""), "--lr: expected a number above 0, got ''"),
    ("train", ("--momentum", "-1"), "--momentum: expected a number of at least 0, got '-1'"),
    ("train", ("--weight_decay", "1e300"), "--weight_decay: expected a number of at most 3.4e+38, got '1e300'"),
    ("train", ("--cache_budget", "1e309"), "--cache_budget: expected a number of at most 3.4e+38"),
    ("train", ("--epoch", "1" + "0" * 400), "--epoch: expected a whole number of at most 2147483647"),
    ("train", ("--steps", "1" + "0" * 5000), "--steps: expected a whole number of at least 1"),
    ("train", ("--batch_size", "4.5"), "--batch_size: expected a whole number of at least 1, got '4.5'"),
    ("train", ("--seed", "4294967296"), "--seed: expected a whole number of at most 2147483647"),
    ("train", ("--seed", "-1"), "--seed: expected a whole number of at least 0, got '-1'"),
    ("train", ("--image_size", "1000000"), "--image_size: expected sides from 32 to 4096 pixels"),
    ("train", ("--image_size", "48.0"), "--image_size: expected a side or HEIGHTxWIDTH, in pixels, got '48.0'"),
    ("train", ("--val_split", "1"), "--val_split: expected a number of at least 0 and below 1, got '1'"),
    ("train", ("--target_fpr", "0"), "--target_fpr: expected a number above 0 and below 1, got '0'"),
    ("train", ("--device_id", "99999999999"), "--device_id: expected a whole number of at most 2147483647"),
    ("train", ("--category", ""), "--category: expected the name of a folder, got ''"),
    ("train", ("--category", "../widget"), "--category: expected the name of a folder, got '../widget'"),
    ("train", ("--category", "a/b"), "--category: expected the name of a folder, got 'a/b'"),
    ("train", ("--category", "Widget"), "no category 'Widget'; found: widget"),
    ("train", ("--category", "\udcff"), "no category '\\udcff'; found: widget"),
    ("train", ("--category", "x" * 300), "no category 'xxx"),
    ("train", ("--data_url", ""), "--data_url: expected a path, got ''"),
    ("train", ("--data_url", "\udcff"), "\\udcff: no such data set folder"),
    ("train", ("--data_url", "x" * 300), "xxx: File name too long"),
    ("train", ("--train_url", ""), "--train_url: expected a path, got ''"),
    ("train", ("--train_url", "x" * 300), "cannot be created as output folder: File name too long"),
    ("train", ("--pre_ckpt_path", ""), "--pre_ckpt_path: expected a path, got ''"),
    ("test", ("--eval_batch_size", "5000"), "--eval_batch_size: expected a whole number of at most 4096, got '5000'"),
    ("export", ("--batch_size", "1000000000"), "--batch_size: expected a whole number of at most 4096"),
    ("test", ("--threshold", "nan"), "--threshold: expected a number above 0, got 'nan'"),
    ("test", ("--threshold", "abc"), "--threshold: expected a number above 0, got 'abc'"),
    ("test", ("--report", ""), "--report: expected a path, got ''"),
    ("test", ("--report", TEACHER), "teacher.ckpt: cannot be created as output folder: File exists"),
    (
        "test",
        ("--save_sample", "True", "--save_sample_path", TEACHER),
        "teacher.ckpt: cannot be created as output folder",
    ),
    ("test", ("--mask_rule", "Half"), "--mask_rule: invalid choice: 'Half'"),
    ("export", ("--category", "../../widget"), "--category: expected the name of a folder, got '../../widget'"),
    ("export", ("--batch_size", "0"), "--batch_size: expected a whole number of at least 1, got '0'"),
    ("export", ("--out_dir", ""), "--out_dir: expected a path, got ''"),
    ("preprocess", ("--img_dir", ""), "--img_dir: expected a path, got ''"),
    ("preprocess", ("--category", ".."), "--category: expected the name of a folder, got '..'"),
    ("postprocess", ("--result_dir", ""), "--result_dir: expected a path, got ''"),
    ("predict", ("--image_path", ""), "--image_path: expected a path, got ''"),
    ("predict", ("--ckpt_path", "."), ".: expected a MindSpore checkpoint"),
    ("predict", ("--device_id", "-1"), "--device_id: expected a whole number of at least 0, got '-1'"),
    ("sweep", ("--device_num", "1e3"), "--device_num: expected a whole number of at least 1, got '1e3'"),
    ("pth2ckpt", ("--ckpt_path", ""), "expected a name that ends in .ckpt"),
    ("demo_data", ("--seed", "one"), "--seed: expected a whole number of at least 0, got 'one'"),
]


@pytest.mark.parametrize(("entry", "flags", "words"), FLAGS, ids=lambda value: str(value)[:40])
def test_wrong_flags(refused, place, entry, flags, words):
    check_refusal(refused, place, entry, words, flags=flags)


VARIABLES = [
    ("train", {"GLOG_v": "loud"}, "GLOG_v 'loud': expected MindSpore's log level"),
    ("train --distributed", {"RANK_ID": "first"}, "RANK_ID 'first': expected a whole number"),
    ("train --distributed", {"MS_WORKER_NUM": "-2"}, "MS_WORKER_NUM '-2': expected a whole number"),
    ("train --distributed", {"MS_SCHED_PORT": ""}, "MS_SCHED_PORT '': expected a whole number"),
    ("run_eval.sh", {"STPM_FOREGROUND": "yes"}, "STPM_FOREGROUND: expected 1, or 0 for the background, got 'yes'"),
    ("run_eval.sh", {"STPM_PYTHON": "/nowhere/python"}, "STPM_PYTHON /nowhere/python: no such program"),
    ("run_distribute_train.sh", {"MSRUN_PORT": "http"}, "MSRUN_PORT: expected a port, 1 to 65535, got 'http'"),
    ("run_distribute_train.sh", {"MSRUN_PORT": "99999"}, "MSRUN_PORT: expected a port, 1 to 65535, got '99999'"),
    ("run_distribute_train.sh", {"STPM_MSRUN_OPTIONS": "--warp; touch x"}, "unrecognized arguments: --warp;"),
    ("sweep", {"RAY_ADDRESS": "rubbish"}, "RAY_ADDRESS rubbish: cannot be joined: Invalid address format"),
    (
        "sweep",
        {"RAY_ADDRESS": "127.0.0.1:1"},
        "RAY_ADDRESS 127.0.0.1:1: cannot be joined: [Errno 111] Connection refused",
    ),
    ("sweep", {"RAY_ADDRESS": "127.0.0.1:99999"}, "RAY_ADDRESS 127.0.0.1:99999: cannot be joined: "),
    ("sweep", {"RAY_ADDRESS": "host:port"}, "RAY_ADDRESS host:port: cannot be joined: Unable to parse port"),
]


@pytest.mark.parametrize(("entry", "variables", "words"), VARIABLES, ids=lambda value: str(value)[:40])
def test_wrong_environment(refused, place, monkeypatch, entry, variables, words):
    if entry.endswith(".sh"):
        arguments = {"run_eval.sh": (DATA, MODEL, "widget"), "run_distribute_train.sh": (DATA, TEACHER, "widget", 1)}
        environment = {"STPM_FOREGROUND": "1", "MSRUN_PORT": "8118"} | variables
        done = run_script(entry, *arguments[entry], cwd=place, **environment)
        assert done.returncode not in (0, None)
        assert words in done.stdout + done.stderr
        assert not (place / "x").exists()
        return
    msrun = {"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "1", "MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": "8118"}
    for name, value in (msrun | variables).items() if "distributed" in entry else variables.items():
        monkeypatch.setenv(name, value)
    flags = ("--distributed", "True") if "distributed" in entry else ()
    check_refusal(refused, place, entry.partition(" ")[0], words, flags=flags)


# --- what is read by MindSpore or PyTorch: checkpoints, resume states, weights ---------------------------------------


def weights(path, **changes):
    """A checkpoint with other entries; None removes one."""

    def damage(place):
        import mindspore as ms  # here, since hundreds of rows have no use for it

        from src.checkpoint import read_checkpoint

        arrays = {name: array for name, array in (read_checkpoint(place / path) | changes).items() if array is not None}
        remove(path)(place)
        ms.save_checkpoint([{"name": n, "data": ms.Tensor(a)} for n, a in arrays.items()], str(place / path))

    return damage


def state(**changes):
    """A resume state that says other things of itself; None removes one."""

    def damage(place):
        from src.checkpoint import read_checkpoint

        meta = json.loads(read_checkpoint(place / STATE)["run_state"].tobytes()) | changes
        text = json.dumps({name: value for name, value in meta.items() if value is not None})
        weights(STATE, run_state=np.frombuffer(text.encode(), np.uint8))(place)

    return damage


STATE = f"{OUT}/widget/widget_resume.ckpt"
TRUNK = {"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}

WEIGHTS = [
    ("teacher", "an entry missing", "train", weights(TEACHER, **{"layer3.0.conv1.weight": None}),
     "teacher.ckpt: layer3.0.conv1.weight is missing"),
    ("teacher", "of another shape", "train", weights(TEACHER, **{"bn1.gamma": np.ones(32, np.float32)}),
     "teacher.ckpt: bn1.gamma has shape (32,), expected (64,)"),
    ("teacher", "NaN inside", "train", weights(TEACHER, **{"bn1.gamma": np.full(64, np.nan, np.float32)}),
     "teacher.ckpt: bn1.gamma holds NaN or infinity"),
    ("teacher", "a negative variance", "train",
     weights(TEACHER, **{"bn1.moving_variance": np.full(64, -1, np.float32)}),
     "teacher.ckpt: bn1.moving_variance holds a negative variance"),
    ("teacher", "of a deeper network", "train",
     weights(TEACHER, **{"layer1.2.bn1.gamma": np.ones(64, np.float32)}),
     "teacher.ckpt: holds layer1.2.bn1.gamma, which no ResNet-18 has"),
    ("teacher", "truncated", "train", cut(TEACHER), "teacher.ckpt: "),
    ("resume state", "missing", "resume", remove(STATE), "widget_resume.ckpt does not exist; start without --resume"),
    ("resume state", "empty", "resume", put(STATE, ""), "widget_resume.ckpt: is empty, not a checkpoint"),
    ("resume state", "truncated", "resume", cut(STATE), "widget_resume.ckpt: "),
    ("resume state", "text", "resume", put(STATE, b"\xff\xfehello" * 100),
     "_resume.ckpt: not a readable MindSpore checkpoint"),
    ("resume state", "one bit flipped", "resume", flip(STATE),
     "widget_resume.ckpt: damaged resume state: not the numbers"),
    ("resume state", "NaN inside", "resume", weights(STATE, **{"student.bn1.gamma": np.full(64, np.nan, np.float32)}),
     "widget_resume.ckpt: damaged resume state: not the numbers"),
    ("resume state", "a checkpoint", "resume", copy(TEACHER, STATE), "not the resume state of a training"),
    ("resume state", "other version", "resume", state(format=2), "format 2, this program reads format 1"),
    ("resume state", "without version", "resume", state(format=None), "damaged resume state (KeyError('format'))"),
    ("resume state", "configuration a number", "resume", state(config=3), "widget_resume.ckpt: damaged resume state"),
    ("resume state", "epochs a number", "resume", state(epochs=3), "widget_resume.ckpt: damaged resume state"),
    ("resume state", "of another seed", "resume", None, "belongs to another configuration: seed was 1, is 2"),
    ("resume state", "folder", "resume", folder(STATE), "widget_resume.ckpt does not exist; start without --resume"),
    ("resume state", "pipe", "resume", pipe(STATE), "widget_resume.ckpt does not exist; start without --resume"),
    ("resume state", "link to itself", "resume", loop(STATE),
     "widget_resume.ckpt does not exist; start without --resume"),
]  # fmt: skip


@pytest.fixture(scope="session")
def sound_training(trained, random_backbone):
    """The teacher and the outputs of a real training, where a scene has them."""
    outer = new_folder()
    put(TEACHER, random_backbone.read_bytes())(outer)
    shutil.copytree(trained[0], outer / OUT)
    for name in ("widget_last.ckpt", "widget_resume.ckpt"):  # MindSpore's are read-only
        (outer / OUT / "widget" / name).chmod(0o644)
    shutil.copytree(outer / OUT / "widget", outer / "model", copy_function=os.link)
    yield outer
    shutil.rmtree(outer)


@pytest.fixture
def trained_place(place, sound_training):
    """The scene with them: links, which are as good as copies, since damage is done to a new file of the name."""

    def link(source, target):
        Path(target).unlink(missing_ok=True)
        os.link(source, target)

    return shutil.copytree(sound_training, place, copy_function=link, dirs_exist_ok=True)


@pytest.mark.parametrize(("what", "wrong", "entry", "damage", "words"), named(WEIGHTS))
def test_damaged_weights(refused, trained_place, what, wrong, entry, damage, words):
    flags = ["--batch_size", 3, "--epoch", 5]
    flags += ["--resume"] if entry == "resume" else []
    if damage is None:
        flags += ["--seed", 2]
    else:
        damage(trained_place)
    check_refusal(refused, trained_place, "train", words, flags=flags)


def test_maps_not_finite(refused, trained_place):
    """Each of them is a number, and no comparison with a threshold would notice."""
    weights(MODEL, **{"model_s.layer3.1.bn2.gamma": np.full(256, 3e38, np.float32)})(trained_place)
    remove(MODEL_JSON)(trained_place)
    words = "widget_last.ckpt: computes maps that hold NaN or infinity; its weights are no good"
    check_refusal(refused, trained_place, "test", words, flags=("--image_size", SIZE))


FULL_DISKS_LATER = [
    # entry point, further flags, bytes that fit
    (
        "train",
        ("--resume", "--epoch", 4, "--batch_size", 3),
        1_000_000,
        "widget_last.ckpt: cannot be written: File too large",
    ),
    ("export", (), 1_000_000, "model.mindir: cannot be exported: "),
    ("test", (), 1000, "out/widget/results.json: cannot be written: File too large"),
    ("predict", (), 80, "out/scores.csv: cannot be written: File too large"),
]


@pytest.mark.parametrize(("entry", "flags", "size", "words"), FULL_DISKS_LATER, ids=lambda value: str(value)[:30])
def test_full_disk_late(refused, trained_place, entry, flags, size, words):
    """Up to there all goes well: what the training wrote, undamaged, is read by all that reads it."""
    check_refusal(refused, trained_place, entry, words, flags=flags, circumstances=full_disk(size))
