"""What a user sees on a terminal: the training's progress bar and the sweep's table."""

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from src.sweep import __main__ as sweep
from src.sweep.job import Programs
from src.sweep.view import SweepView
from tests.conftest import ROOT, make_tree, read_csv, save_picture
from tests.test_scripts import FAST

SIZE = (50, 140)  # rows and columns
CODE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])")


def open_terminal():
    """Open a terminal; return the end that shows it and the one that programs write to."""
    shows, written = pty.openpty()
    fcntl.ioctl(written, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))
    return shows, written


def read_all(shows):
    received = b""
    with os.fdopen(shows, "rb", buffering=0) as stream, contextlib.suppress(OSError):  # so Linux tells of the end
        while part := stream.read(65536):
            received += part
    return received.decode()


def run_on_terminal(name, *arguments, cwd, **environment):
    """Run a script with a terminal of its own; return its exit status and all that the terminal received."""
    shows, written = open_terminal()
    command = ["bash", str(ROOT / "scripts" / name), *map(str, arguments)]
    environment = os.environ | {"STPM_PYTHON": sys.executable, "TERM": "xterm", "STPM_FOREGROUND": "1"} | environment
    for name in ("COLUMNS", "LINES"):
        environment.pop(name, None)
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdin=written, stdout=written, stderr=written, start_new_session=True
    )
    os.close(written)
    received = read_all(shows)
    return process.wait(timeout=60), received


def screen(text):
    """Return the lines that a terminal shows in the end, of what it received."""
    lines, row, column, place = [""], 0, 0, 0
    while place < len(text):
        code = CODE.match(text, place)
        place = code.end() if code else place + 1
        if code:
            count, kind = code.groups()
            if kind == "A":
                row = max(0, row - int(count or 1))
            elif kind == "K":
                lines[row] = "" if count == "2" else lines[row][:column]
        elif text[place - 1] == "\r":
            column = 0
        elif text[place - 1] == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        else:
            lines[row] = lines[row].ljust(column)[:column] + text[place - 1] + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


EPOCH = re.compile(
    r"epoch (\d)/3  loss (\d+\.\d{4})  \d+\.\d s \(\d+\.\d\d s per step\)  \d+\.\d images/s  ETA \d\d:\d\d"
)


def test_training(session_tree, tmp_path):
    """A bar that grows by images, lines above it, and only these in the log."""
    flags = (*FAST[:4], "--epoch", "3", "--device_target", "CPU")
    status, received = run_on_terminal(
        "run_standalone_train.sh", session_tree, "random", "widget", *flags, cwd=tmp_path
    )
    assert status == 0, received
    log = (tmp_path / "widget/train.log").read_text()
    assert not re.search(r"[\r\x1b]|img", log)
    losses = [epoch["loss"] for epoch in json.loads((tmp_path / "widget/train.json").read_text())["epochs"]]
    told = [line for line in log.splitlines() if line.startswith("epoch ")]
    assert [EPOCH.fullmatch(line).groups() for line in told] == [
        (str(i + 1), f"{loss:.4f}") for i, loss in enumerate(losses)
    ]

    shown = screen(received)
    assert [line for line in shown if EPOCH.match(line)] == told, "whole lines, with nothing of the bar"
    bars = re.findall(r"epoch (\d)/3: +(\d+)%\|.*?\| (\d+)/18 \[.*?img.*?, loss=(\d+\.\d{3})\]", received)
    seen = list(dict.fromkeys((int(epoch), int(images), int(percent)) for epoch, percent, images, _ in bars))
    assert seen == [(1, 3, 17), (1, 6, 33), (2, 9, 50), (2, 12, 67), (3, 15, 83), (3, 18, 100)]
    (bar,) = [line for line in shown if "18/18" in line]
    assert re.match(r"epoch 3/3: 100%\|█+\| 18/18 \[00:\d\d<00:00, .*img.*, loss=", bar)
    assert not [line for line in shown if "%|" in line and line != bar], "one bar is left"
    assert "trained 3 epochs" in "\n".join(shown)


@pytest.fixture
def shown(monkeypatch):
    """Let a function change what a sweep shows on a terminal; return what the terminal has received."""

    def show(jobs, change):
        shows, written = open_terminal()
        monkeypatch.setenv("TERM", "xterm")
        for name in ("COLUMNS", "LINES"):
            monkeypatch.delenv(name, raising=False)
        with ThreadPoolExecutor(1) as pool:
            received = pool.submit(read_all, shows)
            with os.fdopen(written, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
                patch.setattr(sys, "stdout", stream)
                patch.setattr(sys, "stderr", stream)
                with SweepView(jobs) as view:
                    change(view)
            return received.result()

    return show


def make_jobs(folder, count):
    """Write categories, and return a sweep's jobs of them."""
    for i in range(count):
        save_picture(folder / f"data/c{i:02}/train/good/0.png", np.random.default_rng(0), size=(2, 2))
        (folder / f"data/c{i:02}/test").mkdir()
        (folder / f"out/c{i:02}").mkdir(parents=True)
    return sweep.make_jobs(folder / "data", folder / "out", "random", flags=[], programs=Programs())


def rows_of(text):
    """The cells of a table's rows, of its last state on a terminal."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in screen(text) if line.startswith("│")]


def test_table(shown, tmp_path):
    """Every state's row, and a line for each change above."""
    jobs = make_jobs(tmp_path, 5)
    running, finished, failed, waiting, skipped = jobs

    def change(view):
        running.hand_over()
        view.show(running)
        finished.state = "finished"
        for job in (finished, skipped, failed):
            job.results.write_text('{"pixel_auroc": 0.91234, "image_auroc": 0.5, "pro": null}')
        view.show(finished)
        waiting.failures.append("of a [bold] first attempt")
        view.show(waiting)
        failed.state, failed.failures = "failed", ["exit status 1: error: it broke"]
        view.show(failed)
        skipped.state = "skipped"
        view.show(skipped)
        view.refresh()

    text = shown(jobs, change)
    assert rows_of(text) == [
        ["c00", "running", "", "", "", "", "", ""],
        ["c01", "finished", "", "", "", "0.9123", "0.5000", ""],
        ["c02", "failed", "", "", "", "", "", ""],
        ["c03", "waiting", "", "", "", "", "", ""],
        ["c04", "skipped", "", "", "", "0.9123", "0.5000", ""],
    ]
    assert [line for line in screen(text) if line.startswith("[")] == [
        "[0/5] c00: running",
        "[1/5] c01: finished  pixel_auroc 0.9123  image_auroc 0.5000  pro",
        "[1/5] c03: to be tried once more  (of a [bold] first attempt)",
        "[2/5] c02: failed  (exit status 1: error: it broke)",
        "[3/5] c04: skipped  pixel_auroc 0.9123  image_auroc 0.5000  pro",
    ]


def test_long_table(shown, tmp_path):
    """Of more categories than fit, those that are running, failed and next."""
    jobs = make_jobs(tmp_path, 45)
    for i, job in enumerate(jobs):
        job.state = {44: "running", 2: "failed"}.get(i, "finished" if i < 20 else "waiting")
    names = [f"c{i:02}" for i in (44, 2, *range(20, 44), *(i for i in range(20) if i != 2))]
    assert [row[0] for row in rows_of(shown(jobs, SweepView.refresh))] == names[:40]


def test_sweep(random_backbone, tmp_path):
    """Two categories, one of them damaged: the table while it runs, its end, and what is left on disk."""
    for category in ("one", "broken"):
        make_tree(tmp_path / "data", category=category)
    (tmp_path / "data/broken/train/good/003.png").write_bytes(b"no picture")
    status, received = run_on_terminal(
        "run_all_mvtec.sh", "data", random_backbone, 2, *FAST, cwd=tmp_path, RAY_worker_niceness="0"
    )
    assert status == 1
    results = json.loads((tmp_path / "one/results.json").read_text())
    loss = json.loads((tmp_path / "one/train.json").read_text())["epochs"][-1]["loss"]
    plain = CODE.sub("", received)
    assert re.search(rf"│ one +│ running +│ 1/1 +│ {loss:.4f} +│ 00:00 +│ +│ +│ +│", plain), "during the evaluation"
    assert re.search(r"│ broken +│ (running|waiting) +│ +│ +│ +│ +│ +│ +│", plain)
    shown = screen(received)
    numbers = " +│ ".join(f"{results[metric]:.4f}" for metric in ("pixel_auroc", "image_auroc", "pro"))
    table = "\n".join(shown)
    assert re.search(
        r"^┃ category +┃ state +┃ epoch +┃ loss +┃ ETA +┃ pixel AUROC +┃ image AUROC +┃ PRO +┃$", table, re.M
    )
    assert re.search(rf"^│ one +│ finished +│ +│ +│ +│ {numbers} +│$", table, re.M)
    assert re.search(r"^│ broken +│ failed +│ +│ +│ +│ +│ +│ +│$", table, re.M)
    assert table.count("┃ category") == 1, "it stays in place"
    assert received.rindex("\x1b[?25h") > received.rindex("\x1b[?25l"), "the cursor is back"
    below = table.rpartition("└")[2]
    assert re.search(r"^failed: broken: train.log, exit status 1: error: .*/003.png: not a readable image", below, re.M)
    assert re.search(r"^1 of 2 categories succeeded; table: .*/results.md$", below, re.M)
    log = (tmp_path / "sweep.log").read_text()
    assert "\x1b" not in log
    assert "[2/2] " in log

    rows = {row["category"]: row for row in read_csv(tmp_path / "results.csv")}
    assert list(rows) == ["broken", "one", "mean"]
    assert rows["broken"]["pixel_auroc"] == ""
    assert float(rows["one"]["pixel_auroc"]) == results["pixel_auroc"]
    assert "| broken | | | | | |" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "one/samples.png").exists()
    assert 'href="one/report.html"' in (tmp_path / "report.html").read_text()
