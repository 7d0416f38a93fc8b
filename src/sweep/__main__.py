"""Train and evaluate every category of a data set, several at a time, on one machine or a cluster.

Ray places the command lines and watches them; nothing here knows how a student is trained.
"""

import argparse
import itertools
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import FLAGS, build_parser
from ..data.folders import warn_once
from ..data.samples import check_root, report_beside_categories
from ..device import DEVICE_TARGETS
from ..files import check_checkpoint_file, file_sha256, lock_folder, make_output_folder
from ..report.page import REPORT_NAME, write_index
from ..report.table import write_tables
from ..utils import LOGGER, RANDOM_TEACHER, InputError, core_count, first_line, run_entry_point
from .job import Job, Programs
from .view import SweepView
from .worker import Outcome, run_commands

if TYPE_CHECKING:
    import ray

OWN_FLAGS = ("data_url", "pre_ckpt_path", "train_url", "device_num", "device_target")
# What may be said to all trainings at once; handed on to train.py.
TRAINING_FLAGS = (
    "recipe", "epoch", "steps", "batch_size", "lr", "lr_schedule", "momentum", "weight_decay", "seed", "image_size",
    "roi", "ignore_mask", "train_tile", "num_class", "amp_level", "cache_teacher", "cache_budget", "val_split",
    "target_fpr", "min_area", "review", "eval_interval", "eval_batch_size", "mask_rule",
)  # fmt: skip
ATTEMPTS = 2
_CONNECT_SECONDS = 10
_RAY_RESOURCES = {"Ascend": "NPU", "GPU": "GPU", "CPU": "CPU"}
_OBJECT_STORE_BYTES = 100_000_000  # outcomes of a few hundred bytes go through it; Ray would take a third of the memory


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; ``training_flags`` are those that go on to train.py."""
    parser = build_parser(__doc__, (*OWN_FLAGS, *TRAINING_FLAGS), trains=True)
    args = parser.parse_args(argv)
    for name in ("data_url", "pre_ckpt_path", "device_num"):
        if getattr(args, name) is None:
            parser.error(f"--{name} is required: {FLAGS[name]['help']}")
    given = [(name, getattr(args, name)) for name in TRAINING_FLAGS]
    args.training_flags = [
        word for name, value in given if value != parser.get_default(name) for word in (f"--{name}", str(value))
    ]
    return args


def main(args: argparse.Namespace) -> int:
    """Run the sweep; return 0, or 1 where a category failed."""
    # 1. What is to be done
    out = make_output_folder(Path(args.train_url).absolute())
    lock_folder(out, ".sweep.lock")
    jobs = make_jobs(
        Path(args.data_url).absolute(), out, args.pre_ckpt_path, flags=args.training_flags, programs=Programs()
    )

    # 2. Where
    total = start_ray(args.device_num)
    device_target = choose_device_target(args.device_target, total)
    options = task_options(device_target, node_cores(), args.device_num)
    LOGGER.info("sweep: %d categories, %d at a time, on %s", len(jobs), args.device_num, device_target)

    # 3. Trainings and evaluations
    for job in jobs:
        job.device_target = device_target
    with SweepView(jobs) as view:
        run_jobs(jobs, at_a_time=args.device_num, options=options, on_change=view.show, on_tick=view.refresh)

    # 4. Results
    write_tables(out, [(job.category, job.metrics()) for job in jobs])
    if any(job.folder.joinpath(REPORT_NAME).exists() for job in jobs):
        write_index(out)
    failed = [job for job in jobs if job.state == "failed"]
    for job in failed:
        LOGGER.error("failed: %s: %s", job.category, job.failures[-1])
    LOGGER.info("%d of %d categories succeeded; table: %s", len(jobs) - len(failed), len(jobs), out / "results.md")
    return 1 if failed else 0


def make_jobs(data: Path, out: Path, backbone: str, *, flags: list[str], programs: Programs) -> list[Job]:
    """Return a job for every category of a data set.

    Raises:
        InputError: there is no category, or one is only nearly so; or the backbone's file cannot be one.
    """
    categories, problems = check_root(data)
    for problem in problems:
        raise InputError(problem)
    report_beside_categories(data, categories, warn_once)
    for name, twin in itertools.pairwise(sorted(categories, key=str.casefold)):
        if name.casefold() == twin.casefold():  # not every file system keeps their results apart
            raise InputError(f"{data}: categories {name!r} and {twin!r} differ only in case; rename one of them")
    sha256 = RANDOM_TEACHER
    if backbone != RANDOM_TEACHER:
        path = Path(backbone).absolute()
        check_checkpoint_file(path)
        backbone, sha256 = str(path), file_sha256(path)
    return [
        Job(name, data, out, backbone, sha256, flags=flags, device_target="auto", programs=programs)
        for name in categories
    ]


def start_ray(device_num: int) -> dict[str, float]:
    """Start Ray on this machine, or join the cluster at RAY_ADDRESS; return its resources.

    Raises:
        InputError: Ray cannot be started, or the cluster cannot be reached.
    """
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    address = os.environ.get("RAY_ADDRESS")
    if address:
        try:
            host, _, port = address.rpartition(":")
            if "://" not in host and port.isdecimal():  # Ray itself would wait for minutes without a word
                socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
            ray.init(address=address, **quiet)
        except (OSError, OverflowError, RuntimeError, ValueError) as error:
            raise InputError(
                f"RAY_ADDRESS {address}: cannot be joined: {error}. Is the cluster up, and do RAY_AUTH_MODE=token and "
                "the cluster's ~/.ray/auth_token stand here, too?"
            ) from error
    else:
        # more trainings at a time than cores are the user's choice
        cores = max(core_count(), device_num)
        try:
            ray.init("local", num_cpus=cores, include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES, **quiet)
        except Exception as error:  # Ray's own, for a machine that is too busy or too small
            raise InputError(
                f"Ray cannot be started on this machine: {error}. Is there room for its files in "
                f"{os.environ.get('RAY_TMPDIR', '/tmp')}? RAY_TMPDIR names another folder"
            ) from error
    return ray.cluster_resources()


def choose_device_target(asked: str, total: dict[str, float]) -> str:
    """Return the device of all trainings: the one asked for, or the first kind that Ray finds.

    Raises:
        InputError: Ray finds none of the kind asked for.
    """
    present = [target for target in DEVICE_TARGETS if total.get(_RAY_RESOURCES[target], 0) >= 1]
    if asked == "auto" and present:
        return present[0]
    if asked not in present:
        found = ", ".join(present) or "none"
        raise InputError(f"--device_target {asked}: Ray finds no such device here; it finds {found}")
    return asked


def node_cores() -> list[int]:
    """Return the number of cores that Ray counts on each of its machines."""
    import ray

    return [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]


def task_options(device_target: str, cores: list[int], device_num: int) -> dict:
    """Return what Ray reserves for one category: a card, which it alone sees, or its share of the cores.

    Args:
        cores: of each machine; a category's are all on one.
    """
    if device_target == "Ascend":
        return {"num_cpus": 0, "resources": {"NPU": 1}}
    if device_target == "GPU":
        return {"num_cpus": 0, "num_gpus": 1}
    shares = range(1, max(cores) + 1)
    return {"num_cpus": max((n for n in shares if sum(own // n for own in cores) >= device_num), default=1)}


def run_jobs(
    jobs: list[Job],
    *,
    at_a_time: int,
    options: dict,
    on_change: Callable[[Job], None],
    on_tick: Callable[[], None],
) -> None:
    """Run all jobs that an earlier sweep has not finished; each gets a second attempt if the first fails.

    Args:
        options: what Ray reserves for each.
        on_change: called when a job's state has changed, and once when Ray has had no room for it for long.
        on_tick: called about once a second.
    """
    import ray

    # no retries by Ray: an attempt that failed may be resumed, which takes another command line
    task = ray.remote(max_retries=0, **options)(run_commands)
    waiting = deque(jobs)
    running: dict[ray.ObjectRef, Job] = {}
    late: set[str] = set()
    while waiting or running:
        while waiting and len(running) < at_a_time:
            job = waiting.popleft()
            if job.is_finished():
                job.state = "skipped"
            else:
                running[start_job(job, task, cores=options["num_cpus"])] = job
            on_change(job)
        for job in running.values():
            if job.category not in late and job.is_late():
                late.add(job.category)
                on_change(job)
        on_tick()
        done, _ = ray.wait(list(running), num_returns=1, timeout=1.0) if running else ([], [])
        for reference in done:
            job = running.pop(reference)
            end_job(job, outcome_of(reference))
            on_change(job)
            if job.state == "waiting":
                waiting.append(job)
    on_tick()


def start_job(job: Job, task: "ray.remote_function.RemoteFunction", *, cores: int) -> "ray.ObjectRef":
    """Hand a job's command lines to Ray."""
    commands = job.commands()  # before the note: whether to resume depends on the note before
    job.folder.mkdir(parents=True, exist_ok=True)
    job.note_started()
    job.hand_over()
    header = f"=== {time.strftime('%Y-%m-%d %H:%M:%S')} attempt {len(job.failures) + 1}"
    return task.remote(commands, header=header, cores=cores)


def outcome_of(reference: "ray.ObjectRef") -> Outcome:
    """Fetch how a job ended; a worker that died is a failure like others."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        return Outcome(f"Ray: {first_line(error)}", [])


def end_job(job: Job, outcome: Outcome) -> None:
    """Take note of how a job ended: finished, failed, or waiting again for its second attempt."""
    if outcome.failure is None:
        job.note_finished(outcome.seconds)
        job.state = "finished"
        return
    job.failures.append(outcome.failure)
    job.was_refused |= not outcome.is_resumable
    job.state = "failed" if len(job.failures) >= ATTEMPTS else "waiting"


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
