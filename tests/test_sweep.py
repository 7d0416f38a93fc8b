"""The sweep over all categories: results, failures, reruns, kills, cores and the table."""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

import test as evaluation
import train
from benchmarks import sweep as benchmark
from src.files import lock_folder
from src.report import table as results_table
from src.sweep import __main__ as sweep
from src.sweep import job as sweep_state
from src.sweep import worker as sweep_task
from src.sweep.job import Job, Programs
from src.sweep.view import SweepView
from src.sweep.worker import Command
from src.utils import InputError
from tests.conftest import ROOT, make_tree, read_csv, run_python
from tests.test_scripts import run_script, wait_for

TINY = ("--image_size", "64", "--batch_size", "3")

# In place of train.py and test.py: writes what they would, and does what the category's name asks for.
STUB = """
import json, pathlib, sys
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
category = flags["--category"]
folder = pathlib.Path(flags.get("--train_url") or flags["--out_dir"]) / category
with (folder / "calls").open("a") as calls:
    print(*sys.argv[1:], file=calls)
if "--train_url" in flags:
    attempts = len((folder / "calls").read_text().splitlines())
    state = folder / f"{category}_resume.ckpt"
    if "--seed" in flags and attempts == 3:
        sys.exit("error: ended in its first epoch")
    if "--resume" in sys.argv and state.read_text() == "trained by hand":
        print(f"error: --resume: {state} belongs to another configuration", file=sys.stderr)
        sys.exit(3)
    state.write_text(f"attempt {attempts}")
    if category == "bad" or (category == "shaky" and attempts == 1):
        sys.exit(f"error: {category} went wrong")
    (folder / f"{category}_last.ckpt").write_text(f"attempt {attempts}")
else:
    (folder / "results.json").write_text(json.dumps({"pixel_auroc": 0.9, "image_auroc": 0.8, "pro": None}))
"""


@pytest.fixture(scope="module")
def ray_cores():
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HOME", raising=False)  # as a service may have none: neither Ray nor its workers need it
        sweep.start_ray(2)
    yield sweep.node_cores()
    ray.shutdown()


@pytest.fixture
def run_sweep(ray_cores, tmp_path):
    """Run a sweep of stubs over categories of these names; return the jobs and the states that were shown."""
    (tmp_path / "stub.py").write_text(STUB)
    programs = Programs(train=tmp_path / "stub.py", evaluate=tmp_path / "stub.py")

    def run(*categories, flags=(), test_images=True):
        for category in categories:
            make_tree(tmp_path / "data", category=category)
            if not test_images:
                subprocess.run(["rm", "-r", tmp_path / "data" / category / "test"], check=True)
        jobs = sweep.make_jobs(tmp_path / "data", tmp_path / "out", "random", flags=list(flags), programs=programs)
        shown = []

        def on_change(job):
            shown.append((job.category, job.state))
            assert [job.state for job in jobs].count("running") <= 2

        options = sweep.task_options("CPU", ray_cores, 2)
        sweep.run_jobs(jobs, at_a_time=2, options=options, on_change=on_change, on_tick=lambda: None)
        return {job.category: job for job in jobs}, shown

    return run


def calls(job):
    return (job.folder / "calls").read_text().splitlines()


def test_benchmark(ray_cores, monkeypatch, capsys):
    """benchmarks/sweep.py, in this process, where Ray runs already."""
    in_own_process = benchmark.processes.run

    def start(command, environment=None):
        if "--worker" not in command:
            return in_own_process(command, environment)
        with redirect_stdout(StringIO()) as output:
            assert benchmark.main(benchmark.parse_args([str(word) for word in command[3:]])) == 0
        return 1.0, 100.0, output.getvalue()

    monkeypatch.setattr(benchmark.processes, "run", start)
    monkeypatch.setattr(sweep, "start_ray", lambda device_num: None)
    assert benchmark.main(benchmark.parse_args(["--categories", "1", "3", "--device_num", "2"])) == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.split("  ") == ["categories", "start-up s", "s per category", "of it two stubs", "driver MB"]
    for count, line in zip((1, 3), lines, strict=True):
        told, start_up, *numbers = (float(cell) for cell in line.split())
        assert told == count
        assert start_up == 0
        assert all(0 < number < 10_000 for number in numbers)


def test_second_attempt(run_sweep):
    """A category that fails is tried twice and stops no other."""
    jobs, shown = run_sweep("bad", "good", "shaky")
    assert {name: job.state for name, job in jobs.items()} == {"bad": "failed", "good": "finished", "shaky": "finished"}
    assert jobs["bad"].failures == ["train.log, exit status 1: error: bad went wrong"] * 2
    assert len(calls(jobs["bad"])) == 2
    assert [state for name, state in shown if name == "shaky"] == ["running", "waiting", "running", "finished"]
    train, again, evaluate = calls(jobs["shaky"])
    assert "--resume" not in train
    assert again == f"{train} --resume"
    assert "--ckpt_path" in evaluate
    log = (jobs["bad"].folder / "train.log").read_text()
    assert re.findall(r"^=== .* (attempt \d)$", log, re.MULTILINE) == ["attempt 1", "attempt 2"]


def test_rerun(run_sweep, tmp_path):
    """What is finished is skipped, what has changed is done again."""
    run_sweep("one", "two")
    jobs, shown = run_sweep()
    assert shown == [("one", "skipped"), ("two", "skipped")]
    assert jobs["one"].metrics()["pixel_auroc"] == 0.9
    make_tree(tmp_path / "data", category="two", train=7)
    jobs, _ = run_sweep()
    assert {name: job.state for name, job in jobs.items()} == {"one": "skipped", "two": "finished"}
    assert "--resume" not in calls(jobs["two"])[2]  # other images: from the beginning
    (tmp_path / "data/two/ground_truth/hole/001_mask.png").write_bytes(b"another mask")
    jobs, _ = run_sweep()
    assert {name: job.state for name, job in jobs.items()} == {"one": "skipped", "two": "finished"}
    (jobs["one"].folder / "results.json").unlink()
    jobs, _ = run_sweep()
    assert {name: job.state for name, job in jobs.items()} == {"one": "finished", "two": "skipped"}
    jobs, _ = run_sweep(flags=["--epoch", "7"])
    assert [job.state for job in jobs.values()] == ["finished", "finished"]
    assert "--epoch 7" in calls(jobs["two"])[-2]


def test_resume_configuration(run_sweep):
    """No state of another configuration is resumed."""
    run_sweep("one")
    jobs, _ = run_sweep(flags=["--seed", "2"])
    train, evaluate, *rest = calls(jobs["one"])
    assert rest == [f"{train} --seed 2", f"{train} --seed 2", evaluate]  # the second attempt, too, from the beginning
    jobs["one"].note("started")
    jobs["one"].training.resume_state.write_text("trained by hand")
    jobs, _ = run_sweep(flags=["--seed", "2"])
    assert jobs["one"].state == "finished"
    assert calls(jobs["one"])[-3:] == [f"{train} --seed 2 --resume", f"{train} --seed 2", evaluate]


@pytest.mark.parametrize(
    ("name", "content", "resumes"),
    [
        ("results.json", '{"pixel_auroc": 1.0, "image_auroc": 1.0, "pro": null}', True),  # test.py by hand
        ("one_last.ckpt", "another model", False),
        ("one_last.ckpt", None, True),  # removed: training restores it
        ("one_resume.ckpt", "another state", None),
        ("one_resume.ckpt", None, None),  # only needed to train on
    ],
)
def test_files_by_hand(run_sweep, name, content, resumes):
    """What was made by hand in a finished folder is not taken for the sweep's."""
    jobs, _ = run_sweep("one")
    path = jobs["one"].folder / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    jobs, _ = run_sweep()
    train, evaluate, *rest = calls(jobs["one"])
    assert rest == ([] if resumes is None else [train + " --resume" * resumes, evaluate])
    assert jobs["one"].state == ("skipped" if resumes is None else "finished")
    assert jobs["one"].metrics()["pixel_auroc"] == 0.9
    assert run_sweep()[1] == [("one", "skipped")]


def test_training_by_hand(run_sweep):
    """It is not gone on with."""
    jobs, _ = run_sweep("one")
    jobs["one"].training.resume_state.write_text("trained by hand")
    jobs["one"].training.checkpoint.write_text("trained by hand")
    jobs, _ = run_sweep()
    train, evaluate, *rest = calls(jobs["one"])
    assert rest == [train, evaluate]


def test_removed_test_images(run_sweep):
    """Results from before they were removed are not shown."""
    jobs, _ = run_sweep("one", "plain")
    jobs, shown = run_sweep("plain", test_images=False)
    assert shown[-1] == ("plain", "finished")
    assert jobs["plain"].results.exists()
    assert jobs["plain"].metrics() == {}
    assert jobs["one"].metrics() != {}


def test_no_test_images(run_sweep):
    """Such a category is trained only."""
    jobs, _ = run_sweep("plain", test_images=False)
    assert jobs["plain"].state == "finished"
    assert len(calls(jobs["plain"])) == 1
    assert run_sweep()[1] == [("plain", "skipped")]


def test_commands(tmp_path):
    """They are what a user would type."""
    make_tree(tmp_path, category="one")
    job = Job("one", tmp_path, tmp_path / "o", "b.ckpt", "0", flags=["--epoch", "3"], device_target="CPU")
    train, evaluate = job.commands()
    assert train.words[1:] == [
        *(str(ROOT / "train.py"), "--category", "one", "--device_target", "CPU", "--data_url", str(tmp_path)),
        *("--pre_ckpt_path", "b.ckpt", "--train_url", str(tmp_path / "o"), "--epoch", "3"),
    ]
    assert evaluate.words[1] == str(ROOT / "test.py")
    assert train.log == str(tmp_path / "o/one/train.log")


def test_category_like_a_flag(tmp_path):
    make_tree(tmp_path, category="-x")
    job = Job("-x", tmp_path, tmp_path / "o", "b.ckpt", "0", flags=[], device_target="CPU")
    train_words, evaluate_words = (command.words[2:] for command in job.commands())
    assert train.parse_args(train_words).category == "-x"
    assert evaluation.parse_args(evaluate_words).category == "-x"


WHOLE = {"pixel_auroc": 0.9, "image_auroc": 1.0, "pro": None}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("sweep.json", b"{"),
        ("sweep.json", b"[]"),
        ("sweep.json", b'{"state": "finished", "configuration": 1}'),
        ("results.json", b""),
        ("results.json", b"[1]"),
        ("results.json", json.dumps(WHOLE).encode()[:-9]),
        ("results.json", json.dumps(WHOLE | {"pro": "0.9"}).encode()),
        ("results.json", json.dumps(WHOLE).replace("0.9", "NaN").encode()),
    ],
)
def test_damaged_outputs(tmp_path, name, content):
    """A category whose outputs are damaged is not finished."""
    make_tree(tmp_path / "data", category="one")
    job = Job("one", tmp_path / "data", tmp_path, "random", "random", flags=[], device_target="CPU")
    job.folder.mkdir()
    (job.folder / "one_last.ckpt").write_text("weights")
    (job.folder / "results.json").write_text(json.dumps(WHOLE))
    job.note_finished([1.0, 1.0])
    assert job.is_finished()
    job.state = "skipped"
    assert job.metrics() == WHOLE
    (job.folder / name).write_bytes(content)
    assert not job.is_finished()
    assert job.metrics() == (WHOLE if name == "sweep.json" else {})


def test_dangling_link(tmp_path):
    """It is left to the training to report."""
    make_tree(tmp_path, category="one")
    (tmp_path / "one/train/good/loop.png").symlink_to("loop.png")
    job = Job("one", tmp_path, tmp_path, "random", "random", flags=[], device_target="CPU")
    assert job.configuration is None


def test_progress(trained, tmp_path):
    """What the record of a real training says after its second epoch: what the training said in its log."""
    job = Job("one", tmp_path, tmp_path, "random", "random", flags=[], device_target="CPU")
    assert job.progress() == ("", "", "")
    job.folder.mkdir()
    out, stdout = trained
    record = json.loads((out / "widget/train.json").read_text())
    second = record | {"epochs": record["epochs"][:2], "epochs_trained": 2}
    job.training.record.write_text(json.dumps(second))
    epoch, loss, left = job.progress()
    (line,) = [line for line in stdout.splitlines() if line.startswith("epoch 2/3 ")]
    assert line.startswith(f"epoch {epoch}  loss {loss}  ")
    assert line.endswith(f"ETA {left}")
    for damaged in ("", "{}", json.dumps(second | {"epochs": []}), json.dumps(second | {"epochs_trained": "2"})):
        job.training.record.write_text(damaged)
        assert job.progress() == ("", "", "")


def test_progress_of_another_attempt(trained, tmp_path):
    """What an earlier training recorded is not this one's."""
    job = Job("one", tmp_path, tmp_path, "random", "random", flags=[], device_target="CPU")
    job.folder.mkdir()
    shutil.copy(trained[0] / "widget/train.json", job.training.record)
    assert job.progress()[0] == "3/3"
    job.hand_over()
    assert job.progress() == ("", "", "")
    shutil.copy(job.training.record, tmp_path / "new.json")
    (tmp_path / "new.json").replace(job.training.record)  # as a training replaces it, after an epoch
    assert job.progress()[0] == "3/3"


def test_outcome(tmp_path):
    """Commands run one after the other, on the cores that they may use, until one fails; the last error is told."""

    def run(*scripts, cores=0):
        commands = [Command(["bash", "-c", script], str(tmp_path / f"{i}.log")) for i, script in enumerate(scripts)]
        outcome = sweep_task.run_commands(commands, header="=== header", cores=cores)
        return outcome.failure, len(outcome.seconds), [(tmp_path / f"{i}.log").read_text() for i in range(len(scripts))]

    assert run("env -u OMP_NUM_THREADS nproc", "echo said >&2", cores=1) == (
        None,
        2,
        ["=== header\n1\n", "=== header\nsaid\n"],
    )
    (tmp_path / "2.log").touch()
    said = "echo error: first; echo 'error: second '; echo then; exit 3"
    assert run("true", said, "true")[:2] == ("1.log, exit status 3: error: second", 2)
    assert (tmp_path / "2.log").read_text() == ""
    assert (tmp_path / "0.log").read_text() == "=== header\n1\n=== header\n"
    assert run("echo one; echo two; kill -9 $$")[0] == "0.log, killed by SIGKILL: two"


def test_orphan(tmp_path):
    """Commands end with the worker that runs them."""
    code = (
        "from src.sweep.worker import *\n"
        f"run_commands([Command(['bash', '-c', 'echo $$; exec sleep 60'], '{tmp_path}/log')], header='', cores=0)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as worker:
        log = tmp_path / "log"
        wait_for(lambda: log.exists() and log.read_text().strip(), "the command")
        pid = int(log.read_text())
        os.kill(pid, 0)
        worker.kill()
    status = Path(f"/proc/{pid}/status")
    wait_for(lambda: not status.exists() or "(zombie)" in status.read_text(), "its end", seconds=10)


def test_cores(tmp_path, monkeypatch):
    """Every caller gets cores of its own."""
    monkeypatch.setattr(sweep_task.tempfile, "tempdir", str(tmp_path))  # apart from sweeps that are running here
    everything = os.sched_getaffinity(0)
    with sweep_task.claim_cores(1) as first, sweep_task.claim_cores(1) as second:
        assert len(first) == 1
        assert len(everything) == 1 or not first & second
    with sweep_task.claim_cores(1) as again:
        assert again == first
    with sweep_task.claim_cores(0) as all_of_them:
        assert all_of_them == everything
    with sweep_task.claim_cores(len(everything) + 1) as too_many:
        assert too_many == everything


@pytest.mark.parametrize(
    ("asked", "total", "expected", "options"),
    [
        ("auto", {"CPU": 8.0}, "CPU", {"num_cpus": 2}),
        ("auto", {"CPU": 8.0, "GPU": 4.0}, "GPU", {"num_cpus": 0, "num_gpus": 1}),
        ("auto", {"CPU": 8.0, "NPU": 8.0, "GPU": 4.0}, "Ascend", {"num_cpus": 0, "resources": {"NPU": 1}}),
        ("CPU", {"CPU": 2.0, "NPU": 8.0}, "CPU", {"num_cpus": 1}),
    ],
)
def test_device_kinds(asked, total, expected, options):
    assert sweep.choose_device_target(asked, total) == expected
    assert sweep.task_options(expected, [int(total["CPU"])], 4) == options


@pytest.mark.parametrize(
    ("cores", "device_num", "share"),
    [([2, 2], 1, 2), ([2, 2], 2, 2), ([2, 2], 3, 1), ([3, 5], 2, 3), ([0, 8], 2, 4), ([2], 9, 1)],
)
def test_core_shares(cores, device_num, share):
    """Ray would wait for ever for more cores than any machine has."""
    assert sweep.task_options("CPU", cores, device_num) == {"num_cpus": share}


def test_no_room(ray_cores, tmp_path, monkeypatch, caplog):
    """A category that Ray has no room for is named."""
    make_tree(tmp_path / "data", category="one")
    jobs = sweep.make_jobs(tmp_path / "data", tmp_path / "out", "random", flags=[], programs=Programs())
    monkeypatch.setattr(sweep_state, "PATIENCE", 0.5)
    caplog.set_level("INFO")

    def stop_when_told():
        if "waits" in caplog.text:
            raise KeyboardInterrupt

    view = SweepView(jobs)
    view.live = None  # as in a log
    options = {"num_cpus": sum(ray_cores) + 1}
    with pytest.raises(KeyboardInterrupt):
        sweep.run_jobs(jobs, at_a_time=1, options=options, on_change=view.show, on_tick=stop_when_told)
    assert "[0/1] one: waits for resources" in caplog.text
    (jobs[0].folder / "train.log").write_text("=== attempt 1\n")
    assert not jobs[0].is_late()


def test_absent_device():
    with pytest.raises(InputError, match="--device_target Ascend: Ray finds no such device here; it finds CPU"):
        sweep.choose_device_target("Ascend", {"CPU": 8.0})
    with pytest.raises(InputError, match="--device_target auto: Ray finds no such device here; it finds none"):
        sweep.choose_device_target("auto", {"memory": 8.0})


def test_refusals(refused, tree, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # what is not refused ends here
    flags = ("--data_url", tree, "--pre_ckpt_path", "random", "--train_url", tmp_path / "o")
    assert "--device_num is required" in refused(sweep, *flags)
    assert "argument --device_num: expected a whole number" in refused(sweep, *flags, "--device_num", 0)
    assert "unrecognized arguments: --speed 2" in refused(sweep, *flags, "--device_num", 1, "--speed", 2)
    assert "argument --lr: expected a number above 0" in refused(sweep, *flags, "--device_num", 1, "--lr", -1)
    (tmp_path / "empty").mkdir()
    error = refused(sweep, "--data_url", tmp_path / "empty", *flags[2:], "--device_num", 1)
    assert "holds no category" in error
    for name in ("one", "One"):
        make_tree(tmp_path / "twins", category=name)
    error = refused(sweep, "--data_url", tmp_path / "twins", *flags[2:], "--device_num", 1)
    assert "categories 'One' and 'one' differ only in case; rename one of them" in error
    (tmp_path / "used").mkdir()
    with (tmp_path / "used/.sweep.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        error = refused(sweep, *flags[:4], "--train_url", tmp_path / "used", "--device_num", 1)
    assert f"{tmp_path}/used: is in use by " in error
    assert "RAY_ADDRESS 127.0.0.1:1: cannot be joined" in refused(sweep, *flags, "--device_num", 1)
    error = refused(sweep, "--data_url", tree, "--pre_ckpt_path", "x.pth", "--train_url", tmp_path, "--device_num", 1)
    assert "x.pth: is a PyTorch file; convert it first" in error


def test_folder_lock(session_tree, tmp_path):
    """The lock of a process that holds it, is killed, and whose place is taken."""
    code = f"from src.files import lock_folder; from pathlib import Path; lock_folder(Path({str(tmp_path)!r}), '.lock')"
    holder = subprocess.Popen(
        ["python3", "-c", code + "; print('held', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(InputError, match=f"is in use by process {holder.pid} on "):
        lock_folder(tmp_path, ".lock")
    holder.kill()
    holder.wait()
    lock_folder(tmp_path, ".lock", patience=5)
    lock_folder(tmp_path, ".lock")  # again by the same process
    assert run_python("-c", code).returncode != 0


def processes(pattern):
    done = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]


def test_kills(random_backbone, tmp_path):
    """The training is killed, then its second attempt's driver, then the next sweep's worker; that sweep ends well."""
    make_tree(tmp_path / "data", category="widget")
    shutil.rmtree(tmp_path / "data/widget/test")
    log, epochs = tmp_path / "widget/train.log", 40
    training, driver = f"train.py --category widget .*{tmp_path}", f"src.sweep .*{tmp_path}"

    def start():
        flags = ("data", random_backbone, 1, *TINY, "--recipe", "recommended", "--epoch", epochs)
        # a worker's children would wait behind whatever else is running
        assert run_script("run_all_mvtec.sh", *flags, cwd=tmp_path, RAY_worker_niceness="0").returncode == 0

    def wait_for_attempt(number):
        """Until it has trained three epochs."""
        text = ""

        def has_come():
            nonlocal text
            text = log.read_text() if log.exists() else ""
            return text.count("=== ") == number and len(re.findall("^epoch ", text.split("=== ")[-1], re.M)) >= 3

        wait_for(has_come, f"attempt {number} to train")

    def kill(pattern):
        (pid,) = processes(pattern)
        os.kill(pid, signal.SIGKILL)

    start()
    wait_for_attempt(1)
    kill(training)
    wait_for_attempt(2)
    assert "attempt 2" in log.read_text()
    kill(driver)
    start()  # at once, beside the orphan
    wait_for_attempt(3)
    parent = int(subprocess.run(["ps", "-o", "ppid=", *map(str, processes(training))], capture_output=True).stdout)
    orphaned = processes(training)
    os.kill(parent, signal.SIGKILL)  # Ray's worker
    wait_for(lambda: not set(orphaned) & set(processes(training)), "the training to die with its worker")
    wait_for(lambda: not processes(driver), "the sweep to end")
    told = (tmp_path / "sweep.log").read_text()
    assert "widget: to be tried once more  (Ray: " in told
    assert "widget: finished  (no test images)" in told
    assert "1 of 1 categories succeeded" in told

    record = json.loads((tmp_path / "widget/train.json").read_text())
    assert [epoch["epoch"] for epoch in record["epochs"]] == list(range(1, epochs + 1))
    begun = [int(n) for n in re.findall(rf"; (\d+) of {epochs} epochs are trained", log.read_text())]
    attempts = re.split(r"^=== .*$", log.read_text(), flags=re.MULTILINE)[1:]
    reached = [max(map(int, re.findall(r"^epoch (\d+)/", text, re.MULTILINE))) for text in attempts]
    assert len(begun) == 4
    for last, resumed_at in zip(reached, begun[1:], strict=False):
        assert resumed_at >= last - 1, f"epoch {last} was reached, and only {resumed_at} kept"


def test_published_values(shared):
    published = json.loads(results_table.PUBLISHED_PATH.read_text())
    reference = json.loads((shared / "reference/published.json").read_text())
    for ours, theirs in (("model_zoo", "seed"), ("paper_code", "official")):
        known = {name: values for name, values in reference[theirs].items() if isinstance(values, dict)}
        assert {name: published[ours].get(name) for name in known} == known
        assert {"pixel_auroc", "image_auroc"} <= set(known)


def test_published_table(tmp_path):
    names = json.loads(results_table.PUBLISHED_PATH.read_text())["categories"]
    own = np.linspace(0.9, 0.99, 15)
    results = [
        (name, {"pixel_auroc": value, "image_auroc": None, "pro": 0.9}) for name, value in zip(names, own, strict=True)
    ]
    table = results_table.write_tables(tmp_path, results)
    bottle = table["categories"][0]
    assert bottle["model_zoo_pixel_auroc"] == 0.987  # here and below, from the two READMEs
    assert bottle["model_zoo_pixel_auroc_difference"] == pytest.approx(0.9 - 0.987)
    assert bottle["paper_code_pro_difference"] == pytest.approx(0.9 - 0.959157)
    assert table["mean"]["pixel_auroc"] == pytest.approx(own.mean())
    assert table["mean"]["model_zoo_pixel_auroc"] == 0.968
    assert table["mean"]["model_zoo_pixel_auroc_difference"] == pytest.approx(own.mean() - 0.968)
    text = (tmp_path / "results.md").read_text()
    assert "| bottle | 0.9000 (-0.087) | | 0.9000 (-0.059) | 0.987 / 1.000 | 0.988 / 1.000 / 0.959 |" in text
    assert "| mean | 0.9450 (-0.023) | | 0.9000 " in text
    assert json.loads((tmp_path / "results.json").read_text()) == table
    rows = read_csv(tmp_path / "results.csv")
    assert [row["category"] for row in rows] == [*names, "mean"]
    assert [float(row["pixel_auroc"]) for row in rows] == pytest.approx([*own, own.mean()])


def test_mean_of_some(tmp_path):
    """Where a value is missing, a mean is not put beside the published one of all."""
    names = json.loads(results_table.PUBLISHED_PATH.read_text())["categories"]
    results = [(name, {"pixel_auroc": 0.99, "image_auroc": None, "pro": 0.9}) for name in names]
    results[0] = ("bottle", {"pixel_auroc": 0.99})  # pro not run
    results[1] = ("cable", {})  # failed
    partial = results_table.write_tables(tmp_path, results)["mean"]
    assert partial["pixel_auroc"] is partial["pro"] is partial["model_zoo_pixel_auroc_difference"] is None
    assert partial["model_zoo_pixel_auroc"] == 0.968
    results[1] = ("cable", {"pixel_auroc": 0.84, "image_auroc": None, "pro": 0.9})
    partial = results_table.write_tables(tmp_path, results)["mean"]
    assert partial["pixel_auroc"] == pytest.approx(0.98)
    assert partial["pro"] is partial["paper_code_pro_difference"] is None
    own = results_table.write_tables(tmp_path, [("mine", {"pixel_auroc": 0.9}), ("failed", {})])
    assert own["mean"]["pixel_auroc"] == 0.9
    assert own["mean"]["model_zoo_pixel_auroc"] is None  # a mean over other categories says nothing beside it
