"""Pictures as they come, on stdin and into a watched folder: each once, at once, over restarts, kills and full disks.

What is said of a program is tried on every one that does it.
"""

import csv
import io
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from src import predict as predict_entry
from src.detector import Inspection
from src.evaluation.decision import DecisionRule
from src.line.jobs import FileIdentity, Stop
from src.line.journal import Journal, LineFile
from src.line.linux import rename_new
from src.line.results import Statistics, picture_line
from src.line.watch import Watch
from src.utils import InputError
from tests.conftest import forget_process, user_environment
from tests.plain_model import write_red_model
from tests.test_infer import sanitized as sanitized
from tests.test_inspect import built as built
from tests.test_inspect import write_model


def save(path, level=128):
    Image.new("RGB", (60, 40), (level,) * 3).save(path)


def put(folder, name, level=128):
    """Give a folder a picture in one move, as whoever writes it should."""
    save(folder.parent / f"{name}.part.png", level)
    (folder.parent / f"{name}.part.png").rename(folder / name)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def line_count(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def files_of(path):
    return [json.loads(line)["file"] for line in path.read_text().splitlines()] if path.exists() else []


@dataclass
class Program:
    """A program and a model to which level 128 is good, and 255 defective.

    ``kills`` says how often ``test_kills`` kills it, ``is_slow`` whether it takes long to begin.
    """

    words: list
    processes: list
    kills: dict
    is_slow: bool

    def start(self, *arguments, **options):
        words = [*map(str, self.words), *map(str, arguments)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        environment = user_environment(PYTHONPATH=str(Path(__file__).parents[1]))
        process = subprocess.Popen(words, text=True, errors="surrogateescape", env=environment, **pipes, **options)
        self.processes.append(process)
        return process

    def run(self, *arguments, text="", **options):
        """Return the status, the lines, and the errors."""
        process = self.start(*arguments, **options)
        stdout, stderr = process.communicate(text, timeout=60)
        return process.returncode, stdout, stderr


@pytest.fixture(params=["python", "cpp"])
def program(request, tmp_path):
    """The program; what was started of it ends with the test."""
    if request.param == "python":
        model = write_red_model(tmp_path / "model", threshold=0.6)
        words, kills = [sys.executable, "-m", "src.predict", "--ckpt_path", model], {"keep": 3, "move": 3, "delete": 3}
    else:
        words = [request.getfixturevalue("built") / "stpm_inspect", "--model", write_model(tmp_path, batch=4)]
        words += ["--device_type", "CPU", "--threads", "1"]
        kills = {"keep": 20, "move": 8, "delete": 8}
    found = Program(words, [], kills, is_slow=request.param == "python")
    yield found
    for process in found.processes:
        process.kill()
        process.wait()


@pytest.fixture
def folder(tmp_path):
    """An empty folder."""
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def test_paths_from_stdin(program, tmp_path):
    """The line of a picture comes before the next path is given; names need not be UTF-8; errors end nothing."""
    names = [os.fsencode(tmp_path) + name for name in (b"/a \xff,\xc3\xa9.png", b"/none.png", b"/b.png")]
    save(os.fsdecode(names[0]))
    save(os.fsdecode(names[2]), 255)
    process = program.start("--stdin", "--format", "jsonl")
    for name, verdict, end in zip(names, ("good", "error", "defective"), (b"\n", b"\r\n\n", b""), strict=True):
        process.stdin.buffer.write(name + end)
        process.stdin.buffer.flush()
        if not end:
            process.stdin.close()
        record = json.loads(process.stdout.readline())
        assert os.fsencode(record["file"]) == name
        assert record["verdict"] == verdict
        assert record["decode_ms"] >= 0
        assert ("error" in record) == (verdict == "error") != ("regions" in record)
    assert record["regions"][0].keys() == {"x", "y", "width", "height", "area", "score"}
    assert [record["regions"][0][name] for name in ("x", "y", "width", "height", "area")] == [0, 0, 60, 40, 2400]
    assert process.wait(timeout=30) == 1
    assert process.stderr.read().splitlines()[-1] == "3 images, 1 unreadable, 1 good, 1 defective"


def test_table(program, tmp_path):
    """CSV, in a file that is replaced, with the pictures that took too long."""
    save(tmp_path / "a,b.png", 255)
    (tmp_path / "bad.png").touch()
    out = tmp_path / "out.csv"
    out.write_text("an earlier run's\n")
    text = f"{tmp_path / 'a,b.png'}\n{tmp_path / 'bad.png'}\n"
    run = ("--stdin", "--out", out, "--report_every", "2")
    for deadline, late in (("0.0001", "1"), ("60000", "0")):
        status, stdout, stderr = program.run(*run, "--deadline_ms", deadline, text=text)
        assert (status, stdout) == (1, "")
        rows = list(csv.DictReader(io.StringIO(out.read_text())))
        fields = "file score relative_score verdict regions error decode_ms inference_ms late"
        assert list(rows[0]) == fields.split()
        assert [row["verdict"] for row in rows] == ["defective", "error"]
        assert [row["regions"] for row in rows] == ["1", "0"]
        assert [row["late"] for row in rows] == [late, late]
        assert rows[0]["file"] == str(tmp_path / "a,b.png")
        assert rows[1]["score"] == ""
        assert ", 2 late" in stderr.splitlines()[-1] or late == "0"
        assert "2 pictures: p50 " in stderr


def test_slow_reader(program, tmp_path):
    """Nothing is lost, and nothing piles up, while nobody reads stdout."""
    save(tmp_path / "a.png")
    process = program.start("--stdin")
    path = f"{tmp_path / 'a.png'}\n".encode()
    process.stdout.buffer.raw.read(1)  # it runs
    os.set_blocking(process.stdin.fileno(), False)
    given, last = 0, time.monotonic()
    while time.monotonic() < last + 1:  # until both pipes are full
        try:
            given += os.write(process.stdin.fileno(), (path * 100)[given % len(path) :])
            last = time.monotonic()
        except BlockingIOError:
            time.sleep(0.05)
    os.set_blocking(process.stdin.fileno(), True)
    with ThreadPoolExecutor(1) as pool:
        lines = pool.submit(process.stdout.read)
        os.write(process.stdin.fileno(), path[given % len(path) :] if given % len(path) else b"")
        process.stdin.close()
        stdout = lines.result(timeout=120)
    assert process.wait(timeout=30) == 0
    assert 500 < len(stdout.splitlines()) == 1 + -(-given // len(path)) < 20000


def test_stop(program, tmp_path):
    """What is in hand is finished; a list that is not is no success."""
    save(tmp_path / "a.png")
    process = program.start("--stdin", "--format", "jsonl")
    process.stdin.write(f"{tmp_path / 'a.png'}\n")
    process.stdin.flush()
    assert process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 1
    errors = process.stderr.read().splitlines()
    assert errors[-2:] == [
        "1 images, 0 unreadable, 1 good, 0 defective", "error: stopped by signal 15 before the last picture"
    ]  # fmt: skip


@pytest.mark.parametrize("after", ["keep", "move", "delete"])
def test_kills(program, folder, tmp_path, after):
    """Kills at any moment: every picture has one line, whole, and is where it belongs."""
    out, chance = tmp_path / "out.jsonl", random.Random(after)
    arguments = ["--watch", folder, "--out", out, "--format", "jsonl", "--after", after]
    arguments += ["--after_dir", tmp_path / "done"] if after == "move" else []
    names = [f"{number:03}.png" for number in range(120)]
    coming = iter(names)
    for _ in range(program.kills[after]):
        process, before = program.start(*arguments), line_count(out)
        for name in itertools.islice(coming, 10):
            put(folder, name)
        if program.is_slow:  # else it would hardly ever be killed at work
            wait_for(lambda before=before: line_count(out) > before)
        end = time.monotonic() + chance.uniform(0, 0.02 if program.is_slow else 0.3)
        while time.monotonic() < end:
            for name in itertools.islice(coming, 2):
                put(folder, name)
            time.sleep(0.01)
        process.kill()
        process.communicate()
        if out.exists():
            cut = out.read_text().rpartition("\n")[0] + "\n"
            out.write_text(out.read_text()[: len(cut) + 20])  # what follows is half of a line, if anything
    for name in coming:
        put(folder, name)
    process = program.start(*arguments)
    wait_for(lambda: line_count(out) >= len(names))
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    assert " images, 0 unreadable, " in stderr.splitlines()[-1]
    assert sorted(files_of(out)) == names
    left = sorted(path.name for path in folder.iterdir())
    assert left == (names if after == "keep" else [])
    if after == "move":
        assert sorted(path.name for path in (tmp_path / "done").iterdir()) == names


def test_full_disk(program, folder, tmp_path):
    """The program ends; what it has reported is whole, and the rest comes on the next start."""
    for number in range(30):
        save(folder / f"{number:03}.png")
    out = tmp_path / "out.jsonl"
    arguments = ("--watch", folder, "--out", out, "--format", "jsonl", "--journal", tmp_path / "journal")
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))}
    status, _, stderr = program.run(*arguments, **limit)
    assert status == 1
    assert "cannot be written: File too large" in stderr
    assert out.read_text().endswith("\n")
    assert 0 < len(files_of(out)) < 30
    process = program.start(*arguments)
    wait_for(lambda: out.read_bytes().count(b"\n") == 30)
    process.terminate()
    process.wait(timeout=30)
    assert sorted(files_of(out)) == sorted(path.name for path in folder.iterdir())


def test_watched(program, folder, tmp_path):
    """An unreadable picture is not deleted; what is moved replaces nothing; a second process is refused."""
    process = program.start("--watch", folder, "--format", "jsonl", "--after", "delete")
    (tmp_path / "x").write_text("no picture")
    (tmp_path / "x").rename(folder / "bad.png")
    put(folder, "good.png")
    found = [json.loads(process.stdout.readline()) for _ in range(2)]
    process.terminate()
    process.communicate(timeout=30)
    assert {record["file"]: record["verdict"] for record in found} == {"bad.png": "error", "good.png": "good"}
    assert [path.name for path in folder.iterdir()] == ["bad.png"]
    assert (tmp_path / "in.journal").exists()
    (folder / "bad.png").unlink()

    process = program.start("--watch", folder, "--format", "jsonl", "--after", "move")
    for _ in range(2):
        put(folder, "a.png")
        assert json.loads(process.stdout.readline())["file"] == "a.png"
        wait_for(lambda: not (folder / "a.png").exists())
    status, _, stderr = program.run("--watch", folder)
    assert (status, stderr.count("is in use by process")) == (1, 1)
    shutil.move(folder, tmp_path / "away")
    put(tmp_path / "away", "b.png", 255)
    time.sleep(0.5)
    shutil.move(tmp_path / "away", folder)
    record = json.loads(process.stdout.readline())
    assert (record["file"], record["verdict"]) == ("b.png", "defective")
    wait_for(lambda: (folder / "inspected/b.png").exists())
    process.terminate()
    assert process.wait(timeout=30) == 0
    assert sorted(path.name for path in (folder / "inspected").iterdir()) == ["a-2.png", "a.png", "b.png"]
    told = process.stderr.read()
    assert told.count(f"watching {folder}\n") == 1
    assert "waiting for it" in told


def test_one_journal(program, folder):
    """Either program goes on where the other one ended."""
    lines = folder.parent / "lines"
    save(folder / 'a \udcff\n"\u00e9.png')
    watcher = Watcher(folder)
    assert watcher.take() == 'a \udcff\n"\u00e9.png'
    with open(lines, "a") as half:
        half.write("a li")
    with open(folder.parent / "journal", "a") as journal:  # of a picture whose line was not finished
        journal.write('7 14 goes 1 1 1 "gone.png"\n')
    forget_process()  # the lock
    process = program.start("--watch", folder, "--out", lines, "--journal", folder.parent / "journal")
    wait_for(lambda: lines.read_bytes().startswith(b"a line\n") and lines.stat().st_size == 7)
    save(folder / "b.png")
    wait_for(lambda: lines.read_bytes().count(b"\n") == 2)
    process.terminate()
    assert process.wait(timeout=30) == 0
    assert lines.read_text().splitlines()[1].startswith("b.png,")
    watcher = Watcher(folder)
    save(folder / "c.png")
    assert watcher.take() == "c.png"
    assert sorted(watcher.leftovers) == ['a \udcff\n"\u00e9.png', "b.png"]


def test_folders_in_the_way(program, folder, tmp_path):
    """What is moved must not be inspected in turn, nor go where files cannot be moved."""
    assert (
        "is where the pictures come from"
        in program.run("--watch", folder, "--after", "move", "--after_dir", tmp_path / "in/../in")[2]
    )
    if os.stat("/dev/shm").st_dev != os.stat(tmp_path).st_dev:
        stderr = program.run("--watch", folder, "--after", "move", "--after_dir", "/dev/shm")[2]
        assert "--after_dir /dev/shm: is on another file system than" in stderr
    assert "none: no such folder to watch" in program.run("--watch", tmp_path / "none", "--after", "move")[2]
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "expected one of --image_path, --watch and --stdin, got 0"),
        (("--image_path", "a", "--stdin"), "expected one of --image_path, --watch and --stdin, got 2"),
        (("--stdin", "--after", "move"), "--after: is for --watch only"),
        (("--watch", "a", "--after_dir", "b"), "--after_dir: is for --after move only"),
        (("--watch", "a", "--after", "burn"), "argument --after: invalid choice: 'burn'"),
        (("--image_path", "a", "--format", "jsonl"), "--format: is for --watch and --stdin only"),
        (("--stdin", "--deadline_ms", "0"), "argument --deadline_ms: expected a number above 0"),
    ],
)
def test_bad_usage(capsys, flags, message):
    with pytest.raises(SystemExit) as raised:
        predict_entry.parse_args(["--ckpt_path", "m.ckpt", *flags])
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


class Watcher:
    """A process that watches, until the next one."""

    def __init__(self, folder, *, poll=0.0, settle=0.03):
        self.journal = Journal(folder.parent / "journal")
        self.lines = LineFile(folder.parent / "lines", is_appended=True)
        self.journal.settle(self.lines)
        self.leftovers, self.stop = [], Stop()
        self.pauses = 0  # how often there was no picture
        watch = Watch(folder, self.journal, self.stop, leftover=self.leftover, poll=poll, settle=settle)
        self.jobs = watch.jobs()

    def leftover(self, job):
        self.leftovers.append(job.file)

    def take(self, *, stays=False):
        """Return the next picture's name, once its line is written."""
        end = time.monotonic() + 20
        for job in self.jobs:
            if job or time.monotonic() > end:
                break
            self.pauses += 1
        else:
            job = None
        if job:
            self.journal.report(job, b"a line\n", self.lines, stays=stays)
        return job and job.file


def test_what_is_finished(folder):
    """Closed, renamed or linked; written anew, it is another one."""
    watcher = Watcher(folder, settle=60)
    for name in ("note.txt", "a.png.part", ".hidden.png", "Thumbs.db"):
        (folder / name).write_text("x")
    with open(folder / "slow.png", "w") as slow:
        slow.write("x")
        slow.flush()
        (folder / "b.png").write_text("xx")
        assert watcher.take() == "b.png"  # not the one that is being written
        (folder / "a.png.part").rename(folder / "a.png")
        assert watcher.take() == "a.png"
        (folder / "c.png").hardlink_to(folder / "note.txt")
        assert watcher.take() == "c.png"
        (folder / "d.png").symlink_to(folder / "note.txt")
        assert watcher.take() == "d.png"
    assert watcher.take() == "slow.png"
    (folder / "b.png").write_text("xxx")
    assert watcher.take() == "b.png"
    (folder / "b.png").unlink()
    (folder / "b.png").write_text("xxx")
    assert watcher.take() == "b.png"
    watcher.stop.signal = signal.SIGTERM
    (folder / "b.png").write_text("x")
    assert watcher.take() is None


def test_settling(folder):
    """What was there before counts once it has not changed for a while; an empty file, too."""
    (folder / "old.png").write_text("x")
    with open(folder / "open.png", "w") as file:
        file.write("x")
        file.flush()
        watcher = Watcher(folder)
        assert watcher.take() == "old.png"
        (folder / "empty.png").touch()
        assert watcher.take() == "empty.png"
    assert watcher.take() == "open.png"


@pytest.mark.parametrize("half", [0, 3, 7, None])
def test_restarts(folder, half):
    """Lines that were written, not written, or written in half (``half``: bytes) when the process was killed."""
    names = ["a.png", "b.png", "c.png\n\udcff.png"]
    for name in names:
        (folder / name).write_text("x")
    watcher = Watcher(folder)
    assert sorted(watcher.take() for _ in names) == names
    (folder / "d.png").write_text("x")
    assert watcher.take() == "d.png"
    journal, lines = folder.parent / "journal", folder.parent / "lines"
    if half is None:  # the entry comes first: neither is there
        journal.write_bytes(journal.read_bytes()[:-5])
    lines.write_bytes(lines.read_bytes()[: 21 + (half or 0)])
    watcher = Watcher(folder)
    (folder / "e.png").write_text("x")
    expected = ["e.png"] if half == 7 else ["d.png", "e.png"]
    assert sorted(watcher.take() for _ in expected) == expected
    assert lines.read_bytes() == b"a line\n" * 5


def test_rotation(folder):
    """Lines that were taken away, as when logs are rotated, are not written again."""
    for name in ("a.png", "b.png"):
        (folder / name).write_text("x")
    watcher = Watcher(folder)
    watcher.take()
    watcher.take()
    (folder.parent / "lines").write_text("")
    watcher = Watcher(folder)
    (folder / "c.png").write_text("x")
    assert watcher.take() == "c.png"
    assert (folder.parent / "lines").read_text() == "a line\n"


def test_leftovers(folder):
    """What a process was killed before it moved, is moved; what is to stay stays."""
    (folder / "goes.png").write_text("x")
    watcher = Watcher(folder)
    watcher.take()
    (folder / "stays.png").write_text("x")
    watcher.take(stays=True)
    watcher = Watcher(folder)
    (folder / "new.png").write_text("x")
    assert watcher.take() == "new.png"
    assert watcher.leftovers == ["goes.png"]


@pytest.mark.parametrize("poll", [0.0, 0.02])
def test_folder_that_vanishes(folder, poll, capsys):
    watcher, away = Watcher(folder, poll=poll), folder.parent / "away"
    (folder / "a.png").write_text("x")
    assert watcher.take() == "a.png"
    folder.rename(away)
    (away / "b.png").write_text("x")
    other = threading.Timer(0.3, away.rename, (folder,))
    other.start()
    assert watcher.take() == "b.png"  # and not the other one again
    other.join()
    shutil.rmtree(folder)
    away.mkdir()
    (away / "c.png").write_text("x")
    other = threading.Timer(0.3, away.rename, (folder,))
    other.start()
    before = watcher.pauses
    assert watcher.take() == "c.png"
    assert watcher.pauses - before < 50  # it waits, and does not ask all the time
    other.join()
    assert capsys.readouterr().err.count("waiting for it") == 2


def test_polling(folder):
    """What grows is not taken; what is written anew is."""
    watcher = Watcher(folder, poll=0.02)
    with open(folder / "grows.png", "w") as growing:
        for i in range(3):
            growing.write("x")
            growing.flush()
            (folder / f"{i}.png").write_text("x")
            assert watcher.take() == f"{i}.png"
    assert watcher.take() == "grows.png"
    (folder / "0.png").write_text("xx")
    assert watcher.take() == "0.png"
    (folder / "0.png").rename(folder / "away")  # and what was gone comes anew
    (folder / "3.png").write_text("x")
    assert watcher.take() == "3.png"
    (folder / "away").rename(folder / "0.png")
    assert watcher.take() == "0.png"


def test_journals_refused(tmp_path):
    (tmp_path / "journal").write_text("something else")
    with pytest.raises(InputError, match=r"journal: is no journal of stpm_inspect"):
        Journal(tmp_path / "journal")
    (tmp_path / "journal").write_text("stpm_inspect journal 1\n1 2 goes 3\n")
    with pytest.raises(InputError, match="is damaged at line 2"):
        Journal(tmp_path / "journal")


def test_journal_is_kept_short(folder, monkeypatch):
    """Of files that are gone nothing is left once there are many."""
    monkeypatch.setattr("src.line.journal._MOST_SPARE", 3)
    watcher, path = Watcher(folder), folder / "a.png"
    for i in range(1, 20):
        path.write_text("x" * i)
        watcher.take()
    assert len((folder.parent / "journal").read_text().splitlines()) <= 1 + 2 + 3
    identity = FileIdentity(19, path.stat().st_mtime_ns, path.stat().st_ino)
    assert Journal(folder.parent / "journal").is_to_go("a.png", identity)


def test_rename_new(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(name)
    with pytest.raises(FileExistsError):
        rename_new(tmp_path / "a", tmp_path / "b")
    rename_new(tmp_path / "a", tmp_path / "c")
    assert [(tmp_path / name).read_text() for name in "bc"] == ["b", "a"]


def test_numbers():
    """JSON without infinity; p99 by hand; the interval begins anew."""
    infinite = Inspection("a.png", 1.0, float("inf"), "defective")
    assert json.loads(picture_line(infinite, "a.png", "jsonl", is_late=None))["relative_score"] is None
    assert b",inf," in picture_line(infinite, "a.png", "csv", is_late=None)
    statistics = Statistics(DecisionRule(1.0))
    for i in range(101):
        statistics.add("good", float(i), is_late=i > 98)
    assert "101 pictures: p50 50.0 ms, p99 99.0 ms, " in statistics.interval()
    assert statistics.interval().startswith("0 pictures: p50 0.0 ms")
    assert statistics.summary() == "101 images, 0 unreadable, 101 good, 0 defective, 2 late"
