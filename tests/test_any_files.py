"""JSON files and folders of any content are read or refused.

More: STPM_FUZZ_EXAMPLES=20000 bash scripts/run_tests.sh tests/test_any_files.py
"""

import io
import json
import os
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from src.data.samples import GOOD, list_categories, list_images, list_test, list_train
from src.data.view import square
from src.exchange.manifest import check_inputs, describe, read_manifest, read_maps, write_inputs
from src.files import file_sha256, read_json, write_json
from src.model.sidecar import read_export, read_sidecar
from src.utils import InputError
from tests.conftest import examples, make_tree, result_or_error

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([10**400, -1, 0, 64]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def nodes(value, path=()):
    """Paths of all values inside a JSON value."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from nodes(value[key], (*path, key))


@st.composite
def damaged(draw, content):
    """Text of a JSON file after one to three changes of its values, or of its bytes."""
    content = json.loads(json.dumps(content))
    if draw(st.integers(0, 4)):
        for _ in range(draw(st.integers(1, 3))):
            path = draw(st.sampled_from(sorted(nodes(content), key=str)))
            if not path:
                content = draw(JSON_VALUES) if draw(st.integers(0, 9)) == 0 else content
                continue
            owner = content
            for key in path[:-1]:
                owner = owner[key]
            if draw(st.booleans()):
                owner[path[-1]] = draw(JSON_VALUES)
            else:
                del owner[path[-1]]
            if not isinstance(content, dict | list):
                break
        return json.dumps(content).encode()
    text = bytearray(json.dumps(content).encode())
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(text) - 1))
        text[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
        text = text or bytearray(b" ")
    return bytes(text)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder of network inputs with its manifest, as JSON."""
    root = make_tree(tmp_path_factory.mktemp("prepared"))
    samples = list_test(root, "widget")
    write_inputs(root, samples, describe(samples, category="widget", view=square(32)))
    return json.loads((root / "manifest.json").read_text())


@st.composite
def harmless(draw, content):
    """The same said otherwise: keys in another order, unknown ones besides, other white space."""
    extra = draw(st.dictionaries(st.text(max_size=5).map("x-{}".format), JSON_VALUES, max_size=3))
    extra = {key: value for key, value in extra.items() if is_strict(value)}
    items = draw(st.permutations([*content.items(), *extra.items()]))
    return json.dumps(dict(items), indent=draw(st.sampled_from([None, 0, 3, "\t"]))).encode()


def is_strict(value):
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


@examples(400)
@given(st.data())
def test_damaged_manifest(prepared, data):
    """It is refused by name, or it still is a manifest."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "manifest.json").write_bytes(data.draw(damaged(prepared)))
        manifest = result_or_error(read_manifest, Path(folder))
    if isinstance(manifest, InputError):
        assert str(manifest).startswith(f"{folder}/manifest.json: ")
        return
    assert min(manifest.view.size) >= 32
    assert all(side % 16 == 0 for side in manifest.view.size)
    assert "no such folder" in str(result_or_error(read_maps, Path("/nowhere"), manifest))
    assert len(manifest.names) == len(manifest.sources)
    assert all("/" not in name for name in manifest.names)
    assert isinstance(manifest.is_labelled, bool)
    assert all(isinstance(text, str) for text in (manifest.category, manifest.samples_sha256, *manifest.names))


@examples(50)
@given(st.data())
def test_harmless_manifest(prepared, data):
    """What is changed without harm is read as the same."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "manifest.json").write_bytes(data.draw(harmless(prepared)))
        manifest = read_manifest(Path(folder))
    assert (manifest.category, manifest.view, manifest.is_labelled) == ("widget", square(32), True)
    assert manifest.samples_sha256 == prepared["samples_sha256"]
    for found, key in ((manifest.names, "name"), (manifest.sources, "source"), (manifest.sha256, "sha256")):
        assert found == [image[key] for image in prepared["images"]]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model's file and what belongs into the JSON beside it."""
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    path.write_bytes(b"weights")
    preprocessing = {
        "colour": "RGB", "resize": "LANCZOS", "scale": 1 / 255, "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225], "layout": "NCHW", "dtype": "float32",
    }  # fmt: skip
    about = {"format": 1, "preprocessing": preprocessing, "category": "widget", "image_size": 64, "threshold": 0.5}
    facts = {"sha256": file_sha256(path), "format": "ONNX", "batch_size": 4}
    return path, about | {"config": {"lr": 0.4}, "config_hash": "0123", "exports": {"m.onnx": facts}}


@examples(400)
@given(st.data())
def test_damaged_sidecar(model, data):
    """It is refused by name, or it still says what a program needs to know."""
    path, content = model
    path.with_suffix(".json").write_bytes(data.draw(damaged(content)))
    for read in (read_sidecar, read_export):
        found = result_or_error(read, path, category="widget")
        if isinstance(found, InputError):
            assert "m.json" in str(found)
            continue
        about, facts = found if isinstance(found, tuple) else (found, {"batch_size": 1})
        assert about.threshold is None or 0 < about.threshold < np.inf
        assert about.config_hash is None or isinstance(about.config_hash, str)
        assert isinstance(facts["batch_size"], int)
        assert facts["batch_size"] > 0


@examples(50)
@given(st.data(), st.sampled_from([None, 1, 1e-30, 3.4e38]), st.sampled_from([None, "", "0123"]))
def test_harmless_sidecar(model, data, threshold, config_hash):
    """What is changed without harm is read as it stands."""
    path, content = model
    content = content | {"threshold": threshold, "config_hash": config_hash}
    path.with_suffix(".json").write_bytes(data.draw(harmless(content)))
    about, facts = read_export(path, category=data.draw(st.sampled_from(["widget", None])))
    assert {key: about.to_json()[key] for key in content} == content
    assert facts == content["exports"]["m.onnx"]
    assert read_sidecar(path, category="widget") == about


@examples(150)
@given(st.binary(max_size=60) | st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b"\xef\xbb\xbf{}"]))
def test_any_bytes(content):
    """They are read as Python's own parser reads them, or refused by name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_bytes(content)
        found = result_or_error(read_json, path)
    if isinstance(found, InputError):
        assert str(found).startswith(f"{path}: ")
    else:
        assert found == json.loads(content)


@examples(60)
@given(st.dictionaries(st.text(max_size=5), JSON_VALUES.filter(is_strict), max_size=4), st.data())
def test_any_json(content, data):
    """An object of any values is read, however it is laid out."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_bytes(data.draw(harmless(content)))
        assert content.items() <= read_json(path).items()


# any bytes but "/" and NUL are a file name, and some of them are no text
NAMES = st.sampled_from(["0", "1", "1_mask", "0_mask", "ä", "a b", "\udcff", "a\n", ".h"]) | st.binary(
    min_size=1, max_size=6
).map(lambda name: os.fsdecode(name.replace(b"/", b"+").replace(b"\0", b"0")))


FILES = st.lists(
    st.tuples(NAMES, st.sampled_from([".png", ".png", ".png", ".PNG", ".jpg", ".txt"])),
    min_size=1,
    max_size=4,
    unique_by=lambda file: file[0],
)
CONTENT = st.tuples(FILES, st.sampled_from(["file"] * 12 + ["folder", "dangling", "link"]), st.booleans())
ANY_FOLDERS = (f"test/{GOOD}", "test/hole", "test/\udc80x", "ground_truth/hole", "ground_truth/good")
FOLDERS = dict.fromkeys(ANY_FOLDERS, CONTENT)
TREES = st.fixed_dictionaries({f"train/{GOOD}": CONTENT}, optional=FOLDERS) | st.dictionaries(
    st.sampled_from(ANY_FOLDERS), CONTENT, min_size=1
)


def grow(root, tree, picture):
    for name, (files, kind, is_paired) in tree.items():
        if is_paired and name == "ground_truth/hole" and "test/hole" in tree:
            files = [(f"{stem}_mask", ".png") for stem, _ in tree["test/hole"][0]]
        folder = root / "widget" / name
        folder.mkdir(parents=True)
        for i, (stem, suffix) in enumerate(files):
            path = folder / f"{stem}{suffix}"
            if path.name in (".", "..") or path.exists():
                continue
            if i or kind == "file":
                path.write_bytes(picture)
            elif kind == "folder":
                path.mkdir()
            else:
                path.symlink_to("nowhere" if kind == "dangling" else root)


@pytest.fixture(scope="module")
def picture():
    file = io.BytesIO()
    Image.new("RGB", (3, 2)).save(file, "PNG")
    return file.getvalue()


def test_any_folders(picture):
    """They are listed in order, each picture with a mask of its own, or refused; many are listed."""
    listed = Counter()

    @examples(250)
    @given(TREES)
    def check(tree):
        with tempfile.TemporaryDirectory() as folder:
            grow(Path(folder), tree, picture)
            listed.update(check_listings(Path(folder), tree))

    check()
    assert listed["train"] >= listed["drawn"] / 4
    assert listed["test"] >= listed["drawn"] / 40
    assert listed["pictures"] >= listed["drawn"]  # one folder of each tree, on average


def check_listings(root, tree):
    """Check what is listed of a data set; yield a word for each listing that was not refused."""
    yield "drawn"
    assert list_categories(root) == (["widget"] if f"train/{GOOD}" in tree else [])
    for word, listing in (("train", list_train), ("test", list_test)):
        samples = result_or_error(listing, root, "widget")
        if isinstance(samples, InputError):
            assert str(samples).startswith(str(root))
            continue
        yield word
        places = [(sample.defect, sample.path.name) for sample in samples]
        assert samples
        assert places == sorted(set(places))
        assert all(sample.defect == sample.path.parent.name for sample in samples)
        assert not any(sample.path.name.startswith(".") for sample in samples)
        for sample in samples:
            if sample.mask_path:
                assert sample.mask_path.parent == root / "widget/ground_truth" / sample.defect
                assert sample.mask_path.stem in (sample.path.stem, f"{sample.path.stem}_mask")
        labelled = {sample.defect for sample in samples if sample.mask_path}  # good images need no masks
        assert all(sample.mask_path for sample in samples if sample.is_defective and sample.defect in labelled)
        manifest = result_or_error(describe, samples, category="widget", view=square(32))
        if isinstance(manifest, InputError):
            assert ": cannot be read: " in str(manifest)
            continue
        assert len(set(manifest.names)) == len(samples)
        if word == "test":
            write_inputs(root, samples, manifest)
            assert read_manifest(root) == manifest
    for name in tree:
        found = result_or_error(list_images, root / "widget" / name)
        if not isinstance(found, InputError):
            yield "pictures"
            assert found
            assert found == sorted(found)


IMAGE_SUFFIXES = (".png", ".PNG", ".jpg", ".jpeg", ".Jpeg", ".bmp", ".tif", ".tiff")
STEMS = st.lists(
    st.sampled_from(["0", "1", "2", "10", "ä", "a b", "\udcff", "-x", "a.b"]), min_size=1, max_size=4, unique=True
)
SOUND_FILES = STEMS.flatmap(
    lambda stems: st.tuples(*(st.tuples(st.just(stem), st.sampled_from(IMAGE_SUFFIXES)) for stem in stems))
)
MASKS = st.sampled_from(["", "0", "0_mask"])  # none, or how they are called beside a picture 0.png
DEFECTS = st.dictionaries(
    st.sampled_from(["good", "hole", "a b", "Z", "10", "9"]), st.tuples(SOUND_FILES, MASKS), min_size=1, max_size=3
)


@examples(50)
@given(SOUND_FILES, DEFECTS, st.booleans())
def test_sound_folders(picture, train, defects, has_others):
    """All pictures are listed in order of their names, each with the mask of its name; what is none is passed over."""
    with tempfile.TemporaryDirectory() as folder:
        root, expected = Path(folder), []
        files = [f"train/good/{stem}{suffix}" for stem, suffix in train]
        for defect, (pictures, mask) in sorted(defects.items()):
            is_masked = mask and defect != "good"
            for stem, suffix in sorted(pictures, key=lambda file: file[0] + file[1]):
                files.append(f"test/{defect}/{stem}{suffix}")
                own_mask = f"ground_truth/{defect}/{mask.replace('0', stem)}.png" if is_masked else None
                expected.append((files[-1], defect, own_mask))
                files += [own_mask] if is_masked else []
        files += ["test/good.txt", "train/good/notes.txt", "train/good/.x.png", "train/bad/0.png"] if has_others else []
        for name in files:
            path = root / "widget" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture)

        def below(path):
            return path and path.relative_to(root / "widget").as_posix()

        assert list_categories(root) == ["widget"]
        names = sorted(stem + suffix for stem, suffix in train)
        assert [below(sample.path) for sample in list_train(root, "widget")] == [f"train/good/{n}" for n in names]
        assert list_images(root / "widget/train/good") == [root / "widget/train/good" / name for name in names]
        samples = list_test(root, "widget")
        assert [(below(one.path), one.defect, below(one.mask_path)) for one in samples] == expected
        manifest = describe(samples, category="widget", view=square(32))
        write_inputs(root, samples, manifest)
        assert read_manifest(root) == manifest
        check_inputs(root)
        assert manifest.sources == [source for source, _, _ in expected]


@examples(100)
@given(st.dictionaries(NAMES, NAMES | st.floats(allow_nan=False, allow_infinity=False), max_size=4))
def test_written_json(content):
    """It is read again as the same."""
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "a.json", content)
        assert read_json(Path(folder) / "a.json") == content
