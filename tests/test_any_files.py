"""JSON files and folders of any content are read or refused.

More: STPM_FUZZ_EXAMPLES=20000 bash scripts/run_tests.sh tests/test_any_files.py
"""

import contextlib
import io
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from src.dataset import GOOD, list_categories, list_images, list_test, list_train
from src.manifest import describe, read_manifest, read_maps, write_inputs
from src.sidecar import read_export, read_sidecar
from src.utils import InputError, file_sha256, read_json, write_json
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
    write_inputs(root, samples, describe(samples, category="widget", image_size=32))
    return json.loads((root / "manifest.json").read_text())


@examples(400)
@given(st.data())
def test_a_damaged_manifest_is_refused_or_still_one(prepared, data):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "manifest.json").write_bytes(data.draw(damaged(prepared)))
        manifest = result_or_error(read_manifest, Path(folder))
    if isinstance(manifest, InputError):
        assert str(manifest).startswith(f"{folder}/manifest.json: ")
        return
    assert manifest.image_size >= 32
    assert manifest.image_size % 16 == 0
    assert "no such folder" in str(result_or_error(read_maps, Path("/nowhere"), manifest))
    assert len(manifest.names) == len(manifest.sources)
    assert all("/" not in name for name in manifest.names)
    assert isinstance(manifest.is_labelled, bool)
    assert all(isinstance(text, str) for text in (manifest.category, manifest.samples_sha256, *manifest.names))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model's file and what belongs into the JSON beside it."""
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    path.write_bytes(b"weights")
    about = {"format": 1, "category": "widget", "image_size": 64, "threshold": 0.5, "config": {"lr": 0.4}}
    facts = {"sha256": file_sha256(path), "format": "ONNX", "batch_size": 4}
    return path, about | {"config_hash": "0123", "exports": {"m.onnx": facts}}


@examples(400)
@given(st.data())
def test_a_damaged_sidecar_is_refused_or_still_one(model, data):
    path, content = model
    path.with_suffix(".json").write_bytes(data.draw(damaged(content)))
    for read in (read_sidecar, read_export):
        found = result_or_error(read, path, category="widget")
        if isinstance(found, InputError):
            assert "m.json" in str(found)
            continue
        about, facts = found if isinstance(found, tuple) else (found, {"batch_size": 1})
        assert about["threshold"] is None or 0 < about["threshold"] < np.inf
        assert "config_hash" in about
        assert isinstance(facts["batch_size"], int)
        assert facts["batch_size"] > 0


@examples(150)
@given(st.binary(max_size=60) | st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b"\xef\xbb\xbf{}"]))
def test_any_bytes_as_json(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_bytes(content)
        found = result_or_error(read_json, path)
        assert isinstance(found, dict) or str(found).startswith(f"{path}: ")


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


@examples(250)
@given(TREES)
def test_any_folders_are_listed_in_order_or_refused(picture, tree):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        grow(root, tree, picture)
        assert list_categories(root) == (["widget"] if f"train/{GOOD}" in tree else [])
        for listing in (list_train, list_test):
            with contextlib.suppress(InputError):
                samples = listing(root, "widget")
                places = [(sample.defect, sample.path.name) for sample in samples]
                assert samples
                assert places == sorted(set(places))
                assert all(sample.defect == sample.path.parent.name for sample in samples)
                assert not any(sample.path.name.startswith(".") for sample in samples)
                for sample in samples:
                    if sample.mask_path:
                        assert sample.mask_path.parent == root / "widget/ground_truth" / sample.defect
                        assert sample.mask_path.stem in (sample.path.stem, f"{sample.path.stem}_mask")
                labelled = {sample.defect for sample in samples if sample.mask_path}
                assert all(sample.mask_path for sample in samples if sample.defect in labelled)
                manifest = describe(samples, category="widget", image_size=32)
                assert len(set(manifest.names)) == len(samples)
                if listing is list_test:
                    write_inputs(root, samples, manifest)
                    assert read_manifest(root) == manifest
        for name in tree:
            with contextlib.suppress(InputError):
                found = list_images(root / "widget" / name)
                assert found
                assert found == sorted(found)


@examples(100)
@given(st.dictionaries(NAMES, NAMES | st.floats(allow_nan=False, allow_infinity=False), max_size=4))
def test_what_is_written_as_json_is_read_again(content):
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "a.json", content)
        assert read_json(Path(folder) / "a.json") == content
