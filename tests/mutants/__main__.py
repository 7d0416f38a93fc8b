"""Plant small defects, one at a time, and tell which of them the tests do not notice.

    bash scripts/run_tests.sh --mutants [--only TEXT] [--jobs N]

The defects stand in the ``*.toml`` files beside this one, by subject. Each is one replaced text in one file, with the
tests that should notice; they run in a copy of the checkout. The exit status is 0 where every defect was noticed but
those that are listed with a reason why they cannot be.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from src.utils import core_count

ROOT = Path(__file__).resolve().parent.parent.parent
LISTS = Path(__file__).parent
TIMEOUT = 600  # seconds for the tests of one defect; a defect by which they hang is noticed


@dataclass(frozen=True)
class Mutant:
    """A small defect.

    Attributes:
        name: what is wrong, in one or two words.
        file: where, below the project's root.
        old: text that stands there once.
        new: what replaces it.
        tests: what should notice: pytest's names of test files or tests.
        survives: why no test can notice; empty for a defect that one must notice.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    survives: str = ""

    def plant(self, root: Path) -> str:
        """Put the defect into a copy of the checkout; return the file's text of before.

        Raises:
            ValueError: the text to replace does not stand in the file exactly once.
        """
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: {self.old!r} stands {count} times in {self.file}, expected once")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")
        return text


def read_lists() -> list[Mutant]:
    """Read all defects, in the order of the files' names."""
    found = []
    for path in sorted(LISTS.glob("*.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]:
            found.append(Mutant(**entry | {"tests": tuple(entry["tests"])}))
    return found


def copy_checkout(folder: Path) -> Path:
    """Copy what git tracks, and what is new and not ignored, with the real data beside it; return the copy."""
    copy = folder / ROOT.name
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0"):
        if name and (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    if (shared := ROOT.parent / "shared").is_dir():
        (folder / "shared").symlink_to(shared)
    return copy


def run_tests(root: Path, tests: tuple[str, ...], *, jobs: int = 0) -> tuple[int, str]:
    """Run tests in a copy until one fails; return pytest's exit status, 124 where they hang, and its output.

    Args:
        jobs: how many at a time; 0: one, in pytest's own process.
    """
    # without compiled files: Python would take one for current if a defect changes neither a file's size nor its second
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "STPM_PYTHON": sys.executable, "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "--durations=0", "-m", "", *tests]
    command += ["--numprocesses", str(jobs), "--dist=worksteal"]
    with subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            output, _ = process.communicate(timeout=None if jobs else TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            return 124, "hangs"
    return process.returncode, output


def judge(root: Path, mutant: Mutant) -> str:
    """Try one defect in a copy; return "noticed by ...", "survived" or "unfair: ..."."""
    before = mutant.plant(root)
    try:
        status, output = run_tests(root, mutant.tests)
    finally:
        (root / mutant.file).write_text(before, encoding="utf-8")
    if status == 0:
        return "survived"
    if status == 124:
        return "noticed: its tests hang"
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    if status != 1 or not failed:  # nothing could be run at all, which says nothing about the tests
        return f"unfair: pytest ended with status {status}\n{output[-2000:]}"
    return f"noticed by {failed[1]}"


def verdicts(mutants: list[Mutant], copies: list[Path]) -> Iterator[tuple[Mutant, str, float]]:
    """Yield each defect with its verdict and the seconds that took, as they come."""
    free: SimpleQueue[Path] = SimpleQueue()
    for copy in copies:
        free.put(copy)

    def try_one(mutant: Mutant) -> tuple[Mutant, str, float]:
        copy, started = free.get(), time.monotonic()
        try:
            return mutant, judge(copy, mutant), time.monotonic() - started
        finally:
            free.put(copy)

    with ThreadPoolExecutor(len(copies)) as pool:
        yield from pool.map(try_one, mutants)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="run_tests.sh --mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="only defects with this in their name or file")
    parser.add_argument("--jobs", type=int, default=core_count(), metavar="N", help="how many at a time")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> int:
    """Try the defects; return 0 where all were noticed but those known to survive."""
    mutants = [one for one in read_lists() if args.only in one.name or args.only in one.file]
    if not mutants:
        print(f"error: --only {args.only}: no defect has this in its name or file", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="stpm-mutants-") as folder:
        copies = [copy_checkout(Path(folder) / str(i)) for i in range(min(args.jobs, len(mutants)))]
        everything = tuple(sorted({test for mutant in mutants for test in mutant.tests}))
        print(f"{len(mutants)} defects; first their tests without any", flush=True)
        status, output = run_tests(copies[0], everything, jobs=args.jobs)
        if status != 0:
            print(f"error: these tests fail without a defect:\n{output[-4000:]}", file=sys.stderr)
            return 2
        wrong = []
        for mutant, verdict, seconds in verdicts(mutants, copies):
            print(f"{mutant.name} ({mutant.file}): {verdict}, {seconds:.0f} s", flush=True)
            if (verdict == "survived") != bool(mutant.survives) or verdict.startswith("unfair"):
                wrong.append(f"{mutant.name} ({mutant.file}): {verdict}")
    known = [one for one in mutants if one.survives]
    print(f"\n{len(mutants)} defects, {len(wrong)} not as they should be, {len(known)} listed as not to be noticed")
    for one in known:
        print(f"not to be noticed: {one.name} ({one.file}): {one.survives}")
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(parse_args()))
