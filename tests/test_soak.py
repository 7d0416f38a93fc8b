"""Many images through the C++ program and through predict: memory and open files stay flat, each has one result.

The long form: bash scripts/run_tests.sh -m slow tests/test_soak.py -rP (STPM_SOAK_IMAGES: how many, 50000 without)
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from src.data.images import to_network_input
from tests.conftest import ROOT, load_image, read_csv, save_picture
from tests.test_infer import program  # noqa: F401 - a fixture

KINDS = 8  # different pictures; all others are links to them
COUNTS = [400, pytest.param(int(os.environ.get("STPM_SOAK_IMAGES", "50000")), marks=pytest.mark.slow)]
# Beyond the first tenth. The program's record of a run takes about 100 bytes an image; a lost 64x64 map would be 16 KB.
MEMORY_SLACK_MB = 24
DESCRIPTOR_SLACK = 8  # files that are just being read or written


@pytest.fixture
def folder(tmp_path):
    """A folder that is removed at once: pytest keeps those of the last three runs."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture
def pictures(folder):
    """Paths of ``KINDS`` different pictures."""
    rng = np.random.default_rng(5)
    for i in range(KINDS):
        save_picture(folder / f"kinds/{i}.png", rng)
    return [folder / f"kinds/{i}.png" for i in range(KINDS)]


def link_many(target, kinds, count):
    """Fill a new folder with ``count`` links to files in turn; return their names, sorted."""
    target.mkdir()
    names = [f"{i:06}{kinds[0].suffix}" for i in range(count)]
    for i, name in enumerate(names):
        os.link(kinds[i % len(kinds)], target / name)
    return names


def memory_and_descriptors(pid):
    """Return resident memory in MB and the number of open files of a process; None once it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, IndexError):
        return None


def soak(command, folder, has_begun, count):
    """Run a command to its end; check that from a tenth of its work on it takes no more memory and open files.

    Args:
        has_begun: whether the first results are there; what it takes to load the model is not looked at.
    """
    log = folder / "log"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GLOG_v": "4"}
    samples = []
    with log.open("w") as output:
        process = subprocess.Popen([str(word) for word in command], stdout=output, stderr=output, env=environment)
        while process.poll() is None:
            sample = memory_and_descriptors(process.pid) if samples or has_begun() else None
            if sample is not None and all(sample):  # both are 0 while it is being torn down
                samples.append((time.monotonic(), *sample))
            time.sleep(0.05)
    assert process.returncode == 0, log.read_text()[-2000:]
    assert len(samples) > 10, "too few images to see anything"
    seconds = samples[-1][0] - samples[0][0]
    late = [sample[1:] for sample in samples if sample[0] - samples[0][0] >= 0.1 * seconds]
    memory, descriptors = zip(*late, strict=True)
    at = {share: late[min(round((share - 0.1) / 0.9 * len(late)), len(late) - 1)] for share in (0.1, 0.5, 0.95)}
    figures = ", ".join(f"at {share:.0%} {mb:.1f} MB and {files} files" for share, (mb, files) in at.items())
    print(
        f"{count} images, {count / seconds:.1f} images/s; {figures}; at most {max(memory):.1f} MB, {max(descriptors)}"
    )
    assert max(memory) - memory[0] < MEMORY_SLACK_MB
    assert max(descriptors) - min(descriptors) <= DESCRIPTOR_SLACK


def check_equal(values, count):
    """Check that there is one value per image, equal for equal images and different for different ones."""
    assert len(values) == count
    assert len(set(values[:KINDS])) == KINDS
    for kind in range(KINDS):
        assert set(values[kind::KINDS]) == {values[kind]}


@pytest.mark.parametrize("count", COUNTS)
def test_program(program, exported, pictures, folder, count):  # noqa: F811
    for picture in pictures:
        to_network_input(load_image(picture, 64)[None]).tofile(picture.with_suffix(".bin"))
    names = link_many(folder / "in", [picture.with_suffix(".bin") for picture in pictures], count)
    maps = folder / "maps"
    command = [program, "--mindir_path", exported / "widget.mindir", "--input_path", folder / "in"]
    command += ["--result_path", maps, "--time_path", folder, "--device_type", "CPU"]
    soak(command, folder, lambda: any(maps.glob("*_0.bin")), count)

    rows = read_csv(maps / "scores.csv")
    assert [row["input"] for row in rows] == names
    results = [name.replace(".bin", "_0.bin") for name in names]
    assert sorted(path.name for path in maps.iterdir()) == [".infer.lock", *results, "origin.json", "scores.csv"]
    contents = [(maps / name).read_bytes() for name in results[:KINDS]]
    for i, name in enumerate(results):
        assert (maps / name).read_bytes() == contents[i % KINDS], name
    check_equal([row["score"] for row in rows], count)
    assert f"images: {count}\n" in (folder / "timing.txt").read_text()


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("model", ["widget_last.ckpt", "widget.onnx"])
def test_predict(trained, exported, pictures, folder, model, count):
    path = trained[0] / "widget" / model if model.endswith("ckpt") else exported / model
    names = link_many(folder / "in", pictures, count)
    out = folder / "out"
    command = [sys.executable, "-m", "src.predict", "--image_path", folder / "in", "--ckpt_path", path]
    command += ["--out_dir", out, "--threshold", "1e-9"]
    soak(command, folder, lambda: out.is_dir() and any(entry.stat().st_size for entry in out.iterdir()), count)

    rows = read_csv(out / "scores.csv")
    assert [row["file"] for row in rows] == names
    assert {(row["verdict"], row["error"]) for row in rows} == {("defective", "")}
    check_equal([row["score"] for row in rows], count)
    records = json.loads((out / "predictions.json").read_text())["images"]
    assert [record["file"] for record in records] == names
    assert sorted(entry.name for entry in out.iterdir()) == ["predictions.json", "regions.csv", "scores.csv"]
