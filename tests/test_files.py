"""Files as the programs write, lock, read and check them, and how a program ends."""

import errno
import fcntl
import hashlib
import json
import logging
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import PackageNotFoundError

import pytest

from src import device as device_module
from src.device import pinned, prepare_environment, set_seed, set_up_device, versions
from src.files import (
    atomic_path,
    check_checkpoint_file,
    check_file,
    check_regular_file,
    file_sha256,
    fingerprint,
    lock_folder,
    make_output_folder,
    read_json,
    write_json,
)
from src.utils import InputError, run_entry_point
from tests.conftest import ROOT, forget_process, run_python

# --- the end of a program --------------------------------------------------------------------------------------------


def ends(error):
    """A program that ends so."""

    def main(_args):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("x.png: no"), 1, "error: x.png: no"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.json"), 1, "error: a.json: No such file"),
        (OSError(errno.ENOSPC, "No space left"), 1, f"error: [Errno {errno.ENOSPC}] No space left"),
        (PermissionError(errno.EACCES, "Permission denied", ""), 1, "error: : Permission denied"),
        (MemoryError("8 GB"), 1, "error: not enough memory: 8 GB"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_error_line(capsys, error, status, line):
    """What a user can cause is one line on stderr, and none on stdout."""
    assert run_entry_point(ends(error), None) == status
    assert capsys.readouterr() == ("", line + "\n")


def test_own_defects():
    """They are not hidden: the traceback is seen."""
    with pytest.raises(ZeroDivisionError):
        run_entry_point(ends(ZeroDivisionError()), None)


@pytest.mark.parametrize("status", [0, 1, 3])
def test_exit_status(status):
    """It is what the program returns; the program gets its arguments."""
    assert run_entry_point(lambda number: number, status) == status


def test_log():
    """Bare messages from INFO on, and no traceback where a log cannot be written."""
    code = "import logging; from src.utils import LOGGER, run_entry_point\n"
    code += "run_entry_point(lambda args: LOGGER.debug('no') or LOGGER.info('said'), None)\n"
    done = run_python("-c", code + "assert not logging.raiseExceptions")
    assert (done.returncode, done.stdout, done.stderr) == (0, "said\n", "")


# --- writing ---------------------------------------------------------------------------------------------------------


def test_atomic_write(tmp_path):
    """The old content stands until the block ends; the temporary file has the same ending and is hidden."""
    path = tmp_path / "model.ckpt"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == tmp_path  # a rename across file systems would fail
        assert temporary.suffix == ".ckpt"
        assert temporary.name.startswith(".model.")
        assert platform.node() in temporary.name
        assert str(os.getpid()) in temporary.name
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_write_reaches_the_disk(tmp_path, monkeypatch):
    """Before the file gets its name, else a power failure could leave an empty one in place of the old."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append((os.fstat(number).st_ino, path.exists())))
    path = tmp_path / "a.json"
    write_json(path, {})
    assert (path.stat().st_ino, False) in synced


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_failed_write(tmp_path, error):
    """Nothing but the old content is left; also not what MindSpore first writes a .ckpt to, a name in .tmp."""
    path = tmp_path / "model.ckpt"
    path.write_text("old")
    with pytest.raises(type(error)), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        temporary.with_suffix(".tmp").write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


def test_atomic_write_nowhere(tmp_path):
    """The file that cannot be written is named."""
    with (
        pytest.raises(InputError, match=r"none/a\.json: cannot be written: No such file"),
        atomic_path(tmp_path / "none/a.json") as temporary,
    ):
        temporary.write_text("x")


@pytest.mark.parametrize("other", ["", "handler"])
def test_sigterm(tmp_path, other):
    """It removes files and folders of blocks that are open, and ends the program; a handler of others' stays in force.

    Files of blocks that have ended are finished, and stay.
    """
    code = """if True:
        import os, pathlib, signal, sys
        from src.files import atomic_path, removed_on_sigterm
        place = pathlib.Path(sys.argv[1])
        if sys.argv[2]:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        for name in ("folder", "finished"):
            (place / name).mkdir()
            (place / name / "x").touch()
        with removed_on_sigterm(place / "finished"):
            pass
        assert sys.argv[2] or signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        with removed_on_sigterm(place / "folder", place / "not there"), atomic_path(place / "a.json") as temporary:
            temporary.write_text("half")
            with atomic_path(place / "b.json") as other:
                other.write_text("whole")
            os.kill(os.getpid(), signal.SIGTERM)
    """
    done = run_python("-c", code, tmp_path, other)
    left = {path.name for path in tmp_path.iterdir()}
    assert done.stderr == ""
    if other:
        assert done.returncode == 7
        assert left == {"folder", "finished", "b.json"}
    else:
        assert done.returncode == -signal.SIGTERM
        assert left == {"finished", "b.json"}


def test_sigterm_in_a_thread(tmp_path):
    """Only the main thread may set handlers; a write in another one works all the same."""
    thread = threading.Thread(target=write_json, args=(tmp_path / "a.json", {"a": 1}))
    thread.start()
    thread.join()
    assert read_json(tmp_path / "a.json") == {"a": 1}
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_leftovers(tmp_path):
    """What processes left that are gone is removed with the first write to a folder; what living ones write is not."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    node = platform.node()
    dead = [f".a.{node}-{gone.pid}.tmp", f".a.{node}-{gone.pid}.tmp.json"]
    kept = [
        *(f".a.{node}-{os.getppid()}.tmp", f".a.elsewhere-{gone.pid}.tmp", f"a.{node}-{gone.pid}.tmp"),
        *(f".a.{node}-{gone.pid}.json", f".a.{node}-1{'0' * 40}.tmp", f".a.{node}-{gone.pid}.tmpx"),
    ]
    for name in dead + kept:
        (tmp_path / name).touch()
    write_json(tmp_path / "b.json", {})
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "b.json"}
    forget_process()
    (tmp_path / dead[0]).touch()
    write_json(tmp_path / "b.json", {})
    assert not (tmp_path / dead[0]).exists()


def test_output_folder(tmp_path):
    """It is made with its parents; one that is there stays as it is."""
    folder = tmp_path / "a/b"
    assert make_output_folder(folder) == folder
    (folder / "x").touch()
    assert make_output_folder(folder) == folder
    assert (folder / "x").exists()
    with pytest.raises(InputError, match="x: cannot be created as output folder: File exists"):
        make_output_folder(folder / "x")


# --- JSON ------------------------------------------------------------------------------------------------------------


def test_json_text(tmp_path):
    """UTF-8, indented, with a newline at the end; a byte that is no text becomes an escape."""
    path = tmp_path / "a.json"
    write_json(path, {"ä": [1, 0.5, None], "b": "\udcff"})
    assert path.read_bytes() == '{\n  "ä": [\n    1,\n    0.5,\n    null\n  ],\n  "b": "\\udcff"\n}\n'.encode()
    assert read_json(path) == {"ä": [1, 0.5, None], "b": "\udcff"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_numbers(tmp_path, value):
    """Other readers refuse NaN and infinity: they are not written, and the old file stays."""
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": [value]})
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "text",
    ["{}", ' {"a" : 1 }\r\n', '{"a": {"a": 1}, "b": {"a": 1}}', '{"\\u00e4": "\\ud83d\\ude00"}', '{"a": 1e-400}'],
)
def test_json(tmp_path, text):
    """As Python's own parser reads it."""
    (tmp_path / "a.json").write_text(text)
    assert read_json(tmp_path / "a.json") == json.loads(text)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"a": NaN}', "not valid JSON: NaN is no JSON"),
        ('{"a": [-Infinity]}', "not valid JSON: -Infinity is no JSON"),
        ('{"b": {"a": 1, "a": 1}}', "not valid JSON: 'a' stands twice"),
        ("[{}]", "expected a JSON object, found list"),
        ("null", "expected a JSON object, found NoneType"),
        ("{} {}", "not valid JSON: Extra data"),
        ("", "not valid JSON: Expecting value"),
        ("[" * 100_000, "not valid JSON: maximum recursion depth"),
        (b"\xff", "not valid JSON: 'utf-8' codec"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_bad_json(tmp_path, content, words):
    """What other readers refuse, or read otherwise, is refused."""
    (tmp_path / "a.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as error:
        read_json(tmp_path / "a.json")
    assert str(error.value).startswith(f"{tmp_path}/a.json: {words}")


# --- checks and hashes -----------------------------------------------------------------------------------------------


def test_good_file(tmp_path):
    """One byte is enough, and a link is as good as what it leads to."""
    (tmp_path / "a.ckpt").write_bytes(b"\0")
    (tmp_path / "b.ckpt").symlink_to("a.ckpt")
    for name in ("a.ckpt", "b.ckpt"):
        check_file(tmp_path / name, "checkpoint")
        check_checkpoint_file(tmp_path / name)
        check_regular_file(tmp_path / name)
    check_regular_file(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.pth", "python -m src.pth2ckpt --pth_path {path} --ckpt_path a.ckpt"),
        ("a.pt", "is a PyTorch file; convert it first"),
        ("a.onnx", "expected a MindSpore checkpoint, a file whose name ends in .ckpt"),
        ("ckpt", "expected a MindSpore checkpoint"),
        ("none.ckpt", "no such checkpoint file"),
        ("empty.ckpt", "is empty, not a checkpoint"),
    ],
)
def test_bad_checkpoint(tmp_path, name, words):
    """The message tells what it is, and what to do."""
    path = tmp_path / name
    if name != "none.ckpt":
        path.write_text("" if name == "empty.ckpt" else "x")
    with pytest.raises(InputError) as error:
        check_checkpoint_file(path)
    assert str(error.value).startswith(f"{path}: ")
    assert words.format(path=path) in str(error.value)


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_mode(tmp_path, mask, expected):
    """Of a new file it is what the umask says, also of one that its writer has left readable to its owner alone."""
    before = os.umask(mask)
    try:
        for name in ("a.ckpt", "a.json"):
            with atomic_path(tmp_path / name) as temporary:
                temporary.write_text("x")
                if name == "a.ckpt":
                    temporary.chmod(0o400)  # as MindSpore does
            assert (tmp_path / name).stat().st_mode & 0o777 == expected
    finally:
        os.umask(before)


def test_command_of_installed_package(tmp_path):
    """A message names a program as it is called where the package is installed, where there is no folder ``src``."""
    (tmp_path / "stpm").symlink_to(ROOT / "src")
    code = "from pathlib import Path; from stpm.files import check_checkpoint_file as f; f(Path('a.pth'))"
    environment = {"PYTHONPATH": str(tmp_path)}
    done = run_python("-c", code, cwd=tmp_path, env=environment)
    assert "convert it first: python -m stpm.pth2ckpt --pth_path a.pth --ckpt_path a.ckpt" in done.stderr
    assert run_python("-m", "stpm.pth2ckpt", "--help", cwd=tmp_path, env=environment).returncode == 0


def test_sha256(tmp_path):
    """Of the whole file, larger than any buffer; a known value beside Python's."""
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert file_sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    content = bytes(range(256)) * 5000
    path.write_bytes(content)
    assert file_sha256(path) == hashlib.sha256(content).hexdigest()
    with pytest.raises(InputError, match="none: cannot be read: No such file"):
        file_sha256(tmp_path / "none")


def test_fingerprint():
    """It does not depend on the order of keys, at any depth, but on every key, value and order of a list."""
    one = fingerprint({"a": 1, "b": {"c": [1, 2], "d": None}})
    assert one == fingerprint({"b": {"d": None, "c": [1, 2]}, "a": 1})
    others = [
        {"a": 1, "b": {"c": [2, 1], "d": None}},
        {"a": 1, "b": {"c": [1, 2]}},
        {"a": "1", "b": {"c": [1, 2], "d": None}},
        {"a": 1, "x": {"c": [1, 2], "d": None}},
    ]
    assert len({one, *map(fingerprint, others)}) == 5


def test_versions():
    """As the packages themselves say."""
    import cv2
    import numpy as np
    import PIL
    import sklearn

    found = versions()
    assert found["python"] == platform.python_version()
    assert found["numpy"] == np.__version__
    assert found["pillow"] == PIL.__version__
    assert found["scikit-learn"] == sklearn.__version__
    assert found["opencv-python-headless"].startswith(cv2.__version__)
    assert found["mindspore"][0].isdigit()


def test_pinned(monkeypatch, tmp_path):
    """From the checkout's requirements; installed, from what pip recorded; where neither is there, the bare name."""
    path = tmp_path / "requirements.txt"
    monkeypatch.setattr(device_module, "OPTIONAL_PACKAGES", path)
    path.write_text("torchvision==0.1\n# torch==0.2\ntorch==2.13.0  # why\n")
    assert [pinned(name) for name in ("torch", "vision", "onnxruntime")] == ["torch==2.13.0", "vision", "onnxruntime"]
    path.rename(tmp_path / "optional.txt")
    monkeypatch.setattr(device_module, "OPTIONAL_PACKAGES", tmp_path / "optional.txt")
    path.write_text("scipy==1.17.1  # why\n")
    assert [pinned(name) for name in ("torch", "scipy")] == ["torch==2.13.0", "scipy==1.17.1"]
    path.unlink()
    recorded = {"stpm": ["numpy==1.26.4", 'torch==2.14.0rc1; extra == "optional"']}
    monkeypatch.setattr(device_module, "requires", recorded.get)
    assert [pinned(name) for name in ("torch", "onnxruntime")] == ["torch==2.14.0rc1", "onnxruntime"]
    recorded["stpm"] = None  # so importlib tells that nothing is required
    assert pinned("torch") == "torch"

    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(device_module, "requires", absent)
    assert pinned("torch") == "torch"


# --- locks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a lock of this folder until it is told to end."""
    code = "import pathlib, sys; from src.files import lock_folder; lock_folder(pathlib.Path(sys.argv[1]), '.lock')"
    command = [sys.executable, "-c", code + "; print('held', flush=True); input()", tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_others_lock(holder, tmp_path):
    """It is refused as long as the other lives, by the other's number; whether that ends or is killed, it is free."""
    words = f"^{tmp_path}: is in use by process {holder.pid} on {platform.node()}; wait for it, or stop it$"
    for _ in range(2):
        with pytest.raises(InputError, match=words):
            lock_folder(tmp_path, ".lock")
    lock_folder(tmp_path, ".other")
    threading.Timer(0.3, holder.kill).start()
    started = time.monotonic()
    lock_folder(tmp_path, ".lock", patience=60)
    assert 0.2 < time.monotonic() - started < 30
    assert (tmp_path / ".lock").read_text() == f"process {os.getpid()} on {platform.node()}\n"


def test_own_lock(tmp_path):
    """Asked for again, by another path too, it is this process's; nobody else can take it meanwhile."""
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / "link"):
        lock_folder(folder, ".lock")
        with open(tmp_path / ".lock") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    forget_process()
    with open(tmp_path / ".lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_no_locks(tmp_path, monkeypatch, caplog):
    """On a file system without them the work goes on, with a warning."""

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    lock_folder(tmp_path, ".lock")
    assert "cannot be locked (No locks available): nothing else may write there" in caplog.text


def test_end_with_parent(tmp_path):
    """A process ends by the signal asked for when the one that started it is killed."""
    child = "import signal, sys; from src.utils import end_with_parent; end_with_parent(signal.SIGUSR1)\n"
    child += "signal.signal(signal.SIGUSR1, lambda *_: (print('told'), sys.exit()))\n"
    child += "print('ready', flush=True); signal.pause()"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        assert process.stdout.read() == b"told\n"


# --- device ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["", "0", "3", "4"])
def test_log_level(monkeypatch, level):
    """Errors only, unless the user has set another; what MindSpore does not take is refused."""
    name = "GLOG_v"
    monkeypatch.setenv(name, level)
    prepare_environment()
    assert os.environ[name] == level
    monkeypatch.delenv(name)
    prepare_environment()
    assert os.environ[name] == "3"
    monkeypatch.setenv(name, "5")
    with pytest.raises(InputError, match="GLOG_v '5': expected MindSpore's log level, 0"):
        prepare_environment()


# As much of MindSpore as setting up a CPU asks for.
STAND_IN = """
import gc, types
WAS_ON, GRAPH_MODE = gc.isenabled(), 0
cpu = types.SimpleNamespace(is_available=lambda: True)
device_context = types.SimpleNamespace(cpu=cpu)
set_context, get_context, set_device = (lambda *words, **named: 1 for _ in range(3))
"""


@pytest.mark.parametrize("start", ["run_entry_point(lambda args: show(), None)", "show()"], ids=["ours", "another's"])
def test_garbage_collector(tmp_path, start):
    """In a program it rests while MindSpore is imported, and ignores what that made; in others' it stays as it is."""
    (tmp_path / "mindspore.py").write_text(STAND_IN)
    program = f"""
import gc
from src.device import set_up_device
from src.utils import run_entry_point
def show():
    before = gc.get_freeze_count()
    for _ in range(2):
        set_up_device("CPU")
        import mindspore
        print(mindspore.WAS_ON, gc.isenabled(), gc.get_freeze_count() > before)
    return 0
{start}"""
    done = run_python("-c", program, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert done.stdout.splitlines() == ["True True False" if start == "show()" else "False True True"] * 2, done.stderr


def test_instruction_set(monkeypatch):
    """MindSpore's own convolutions are held to AVX2; others, and what the user has set, are not touched."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    prepare_environment(own_convolutions=True)
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == "SSE41"
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    prepare_environment()
    assert "ONEDNN_MAX_CPU_ISA" not in os.environ
    prepare_environment(own_convolutions=True)
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX2"


@pytest.mark.parametrize(
    ("asked", "present", "expected"),
    [
        (("auto", 1), ("Ascend", "GPU", "CPU"), ("Ascend", 1)),
        (("auto", 0), ("GPU", "CPU"), ("GPU", 0)),
        (("auto", 1), ("CPU",), ("CPU",)),
        (("GPU", 3), ("Ascend", "GPU", "CPU"), ("GPU", 3)),
        (("GPU", None), ("Ascend", "GPU", "CPU"), ("GPU",)),
        (("CPU", 2), ("Ascend", "CPU"), ("CPU",)),
        (("Ascend", 0), ("GPU", "CPU"), "device Ascend: MindSpore .* sees no such device here"),
    ],
)
def test_device(monkeypatch, caplog, asked, present, expected):
    """The one asked for with its number, or the first of Ascend, GPU and CPU; on stand-ins for the devices."""
    import mindspore as ms

    caplog.set_level(logging.INFO)
    chosen = []
    monkeypatch.setattr(ms, "set_device", lambda *which: chosen.append(which))
    for target in ("Ascend", "GPU", "CPU"):
        device = getattr(ms.device_context, target.lower())
        monkeypatch.setattr(device, "is_available", lambda target=target: target in present)
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            set_up_device(*asked)
        assert not chosen
        return
    assert set_up_device(*asked) == expected[0]
    assert chosen == [expected]
    assert ("found automatically" in caplog.text) == (asked[0] == "auto")
    assert ms.get_context("mode") == ms.GRAPH_MODE


def test_seed(device):
    """MindSpore's and numpy's random numbers follow from it."""
    import numpy as np
    from mindspore.common.initializer import initializer

    drawn = []
    for seed in (1, 1, 2):
        set_seed(seed)
        drawn.append((*initializer("normal", [2]).init_data().asnumpy(), np.random.random()))
    assert drawn[0] == drawn[1]
    assert not set(drawn[0]) & set(drawn[2])
