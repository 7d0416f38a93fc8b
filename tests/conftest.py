"""Fixtures: a tiny MVTec AD tree, random weights, the command lines, and the real data where it is there."""

import contextlib
import csv
import fcntl
import gc
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
sys.path.insert(0, str(ROOT))

from src import files, utils
from src.data import decoding, images
from src.data.folders import warn_once
from src.data.view import square
from src.device import prepare_environment, set_up_device
from src.utils import InputError, run_entry_point

# What this process sets for itself is not for programs in processes of their own. A worker that runs some of the tests
# begins with the environment of the process that started it: this variable names what came to that.
_OWN = "STPM_TESTS_OWN_VARIABLES"
_before = set(os.environ) - set(os.environ.get(_OWN, "").split())
prepare_environment(own_convolutions=True)  # some tests in this process use them
os.environ[_OWN] = " ".join(sorted(os.environ.keys() - _before | {_OWN}))
USER_ENVIRONMENT = {name: value for name, value in os.environ.items() if name in _before - {_OWN}}
settings.register_profile("stpm", derandomize=True, deadline=None, database=None)  # the same examples in every run
settings.load_profile("stpm")

ON_SIGNAL = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
IN_CI = os.environ.get("CI") == "true"


# The files that run longest, the longest first: one that began last would run on alone, beside idle workers.
LONG = (
    "demo", "golden", "distributed", "training", "infer", "faults", "chain", "sweep", "geometry", "pictures_in_cpp",
    "program", "vendor_package", "recipe", "bfloat16", "benchmarks", "inspect", "terminal", "line", "style",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Mark what uses the real data, so that ``-m shared`` selects it; put the files that run long first."""
    for item in items:
        if "shared" in item.fixturenames:
            item.add_marker("shared")
    ranks = {f"test_{name}.py": rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))


def missing(reason):
    """Skip a test for want of something that a user need not have; CI has everything, and fails."""
    if IN_CI:
        pytest.fail(f"{reason}, and CI must not skip a test")
    pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Escape what is no text in a file's name: pytest-xdist cannot hand on a report of a failure that holds it."""
    report = yield

    def escaped(text):
        return text.encode(errors="backslashreplace").decode()

    report.sections = [(name, escaped(text)) for name, text in report.sections]
    if report.longrepr is not None and escaped(str(report.longrepr)) != str(report.longrepr):
        report.longrepr = escaped(str(report.longrepr))
    return report


@pytest.fixture(scope="module", autouse=True)
def without_old_objects():
    """Spare the garbage collector the objects of before: MindSpore has it go through all before it compiles a graph."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def as_in_a_new_process():
    """Undo what programs that tests call in this process leave in it: handlers, locks, what was tidied up once."""
    root, handlers, level = logging.getLogger(), logging.getLogger().handlers[:], logging.getLogger().level
    raise_exceptions = logging.raiseExceptions
    for number, handler in ON_SIGNAL.items():  # Ray, started for a whole module, leaves its own
        signal.signal(number, handler)
    yield
    for number, handler in ON_SIGNAL.items():
        signal.signal(number, handler)
    root.handlers[:] = [handler for handler in root.handlers if handler in handlers]
    root.setLevel(level)
    logging.raiseExceptions = raise_exceptions
    forget_process()


def forget_process():
    """Let go of this process's locks, and let it look for leftovers again."""
    for lock in files._LOCKS.values():
        lock.close()
    files._LOCKS.clear()
    files._remove_leftovers.cache_clear()
    images._FORMER.clear()
    utils._is_program = False
    decoding.REMARKS.forget()
    warn_once.cache_clear()


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """A folder that all workers of this run have in common."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder = folder / "of all workers"
    folder.mkdir(exist_ok=True)
    return folder


@contextlib.contextmanager
def locked(path):
    """Hold the lock of this name: the other workers wait."""
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_once(folder, make):
    """Have a folder filled by ``make(folder)`` in the worker that needs it first; return it, whole, in all of them."""
    done = folder.with_name(f"{folder.name}.made")
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # there where making it failed
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def device():
    """MindSpore in graph mode on the CPU."""
    return set_up_device("CPU")


@pytest.fixture
def without_onednn(monkeypatch):
    """MindSpore's own operators on CPU: as on Ascend and GPU, and where there is no oneDNN of a known version."""
    from src.cpu import onednn

    monkeypatch.setattr(onednn, "is_available", lambda: False)
    monkeypatch.delattr(onednn, "convolution")  # nothing may use it all the same


@pytest.fixture(scope="session")
def shared():
    """The folder of real data; absent for users, required in CI."""
    if not SHARED.is_dir():
        missing(f"no real data beside the checkout: {SHARED} is missing")
    return SHARED


def save_picture(path, rng, size=(48, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), np.uint8)).save(path)


def load_image(path, side):
    """A picture as the programs read it, resized to a square."""
    return images.load_image(path, square(side))


def load_mask(path, side, *, picture=None):
    """The mask in a file as the programs read it, resized to a square; its doubts are nobody's business here."""
    return images.load_mask_and_doubts([path], square(side), picture=picture)[0]


def make_tree(root, category="widget", train=6, good=2, defects=("hole", "stain"), per_defect=2):
    """Write a tiny category with random pictures and square masks; return ``root``."""
    rng = np.random.default_rng(0)
    for i in range(train):
        save_picture(root / category / "train/good" / f"{i:03}.png", rng)
    for i in range(good):
        save_picture(root / category / "test/good" / f"{i:03}.png", rng)
    for defect in defects:
        for i in range(per_defect):
            save_picture(root / category / "test" / defect / f"{i:03}.png", rng)
            mask = np.zeros((40, 48), np.uint8)
            mask[10:20, 8 : 24 + 4 * i] = 255
            path = root / category / "ground_truth" / defect / f"{i:03}_mask.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path)
    return root


@pytest.fixture
def tree(tmp_path):
    """The root of a data set with one tiny category, ``widget``."""
    return make_tree(tmp_path / "data")


@pytest.fixture(scope="session")
def session_tree(run_folder):
    """The same, made once, for tests that only read it."""
    return make_once(run_folder / "data set", make_tree)  # a space, to see that nothing splits paths


@pytest.fixture(scope="session")
def random_backbone(run_folder, device):
    """A ready ResNet-18 checkpoint with random weights and plausible batch-norm statistics."""
    return make_once(run_folder / "backbone", write_random_backbone) / "resnet18.ckpt"


def write_random_backbone(folder):
    import mindspore as ms

    from src.checkpoint import checkpoint_entries, load_checked, named_arrays, named_parameters
    from src.resnet import ResNet18Trunk

    ms.set_seed(7)
    trunk = ResNet18Trunk()
    parameters = named_parameters(trunk)
    load_checked(parameters, named_arrays(trunk) | random_statistics(named_arrays(trunk)), source="test")
    ms.save_checkpoint(checkpoint_entries(parameters), str(folder / "resnet18.ckpt"))


@pytest.fixture(scope="session")
def real_teacher(shared, run_folder):
    """The pretrained teacher as a checkpoint."""

    def convert(folder):
        source = shared / "weights/resnet18_imagenet_trunk.pth"
        done = run_python("src/pth2ckpt.py", "--pth_path", source, "--ckpt_path", folder / "resnet18.ckpt")
        assert done.returncode == 0, done.stderr

    return make_once(run_folder / "real teacher", convert) / "resnet18.ckpt"


def random_statistics(arrays):
    """Random batch-norm parameters and statistics for every batch norm in MindSpore-named arrays."""
    rng = np.random.default_rng(3)
    ranges = {"gamma": (0.5, 1.5), "beta": (-0.3, 0.3), "moving_mean": (-0.3, 0.3), "moving_variance": (0.5, 2.0)}
    return {
        name: rng.uniform(*ranges[name.rpartition(".")[2]], array.shape).astype(np.float32)
        for name, array in arrays.items()
        if name.rpartition(".")[2] in ranges
    }


@pytest.fixture(scope="session")
def trained(run_folder, session_tree, random_backbone):
    """The output folder of a real training of 3 epochs, through the command line, with its stdout."""

    def train(folder):
        done = run_python("train.py", *train_arguments(session_tree, random_backbone, folder / "out", epoch=3))
        assert done.returncode == 0, done.stderr
        (folder / "stdout").write_text(done.stdout)

    folder = make_once(run_folder / "trained", train)
    return folder / "out", (folder / "stdout").read_text()


@pytest.fixture(scope="session")
def exported(run_folder, trained):
    """A folder with that training's student as MINDIR for batches of 4 and as ONNX for single images."""

    def export(folder):
        for file_format, batch_size in (("MINDIR", 4), ("ONNX", 1)):
            flags = ("--category", "widget", "--file_format", file_format, "--batch_size", batch_size)
            checkpoint = trained[0] / "widget/widget_last.ckpt"
            done = run_python("export.py", "--ckpt_file", checkpoint, *flags, "--out_dir", folder)
            assert done.returncode == 0, done.stderr
            assert "verified: largest relative difference of the maps" in done.stdout

    return make_once(run_folder / "exported", export)


def train_arguments(data, backbone, out, *, epoch, category="widget"):
    """Of two equal batches an epoch: MindSpore compiles the network anew for a last batch of another size."""
    return [
        *("--data_url", data, "--category", category, "--pre_ckpt_path", backbone, "--train_url", out),
        *("--image_size", 64, "--batch_size", 3, "--epoch", epoch, "--device_target", "CPU"),
    ]


def user_environment(**changes):
    """The environment for a program in its own process: as a user has it, not as this process made it for itself."""
    own = os.environ[_OWN].split()
    return {name: value for name, value in os.environ.items() if name not in own} | changes


def call(module, *words):
    """Run one of the programs in this process; return its status."""
    return module.main(module.parse_args([str(word) for word in words]))


def read_csv(path):
    """The lines of a CSV file as dicts; bytes of names that are no text stay what they are."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def run_python(*command, **options):
    """Run one of the project's Python files or ``-m`` modules in a process of its own."""
    words = [str(word) for word in command]
    if words[0].endswith(".py"):
        words[0] = str(ROOT / words[0])
    environment = user_environment(PYTHONPATH=str(ROOT)) | options.pop("env", {})
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=300, env=environment, check=False, **options
    )


@pytest.fixture
def refused(capsys):
    """Run an entry point in this process and return the one error line that it must end with."""

    def run(module, *arguments):
        words = [str(word) for word in arguments]
        try:
            status = run_entry_point(module.main, module.parse_args(words))
        except SystemExit as stop:  # argparse
            status = stop.code
        stderr = capsys.readouterr().err
        assert status in (1, 2, 3), f"exit status {status}, stderr {stderr!r}"
        assert "Traceback" not in stderr
        return stderr.strip().splitlines()[-1]

    return run


def examples(usual):
    """Hypothesis settings: the same few examples in every run of the suite, many new ones in a campaign."""
    count = int(os.environ.get("STPM_FUZZ_EXAMPLES", "0"))
    return settings(max_examples=count or usual, derandomize=not count)


def result_or_error(call, *arguments, **named):
    """Return what a call returns, or the InputError that it raises."""
    try:
        return call(*arguments, **named)
    except InputError as error:
        return error
