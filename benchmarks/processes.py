"""The processes of a benchmark: programs that run to their end, and workers that do a round of work when asked."""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from src.utils import InputError

ROOT = Path(__file__).resolve().parent.parent


def run(command, environment=None, *, own_memory=False):
    """Run a command to its end; return its seconds, its peak memory in MB and its output.

    Args:
        own_memory: leave out pages of files that are mapped into memory, which the system may take back.

    Raises:
        InputError: it failed; it has said why on stderr.
    """
    words = [str(word) for word in command]
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(words, cwd=ROOT, stdout=output, env=environment)
        memory = _watch(process) if own_memory else _wait(process)
        if process.returncode:
            raise InputError(f"failed with status {process.returncode}: {' '.join(words)}")
        seconds = time.perf_counter() - started
        output.seek(0)
        return seconds, memory, output.read()


class Worker:
    """A module's ``main`` in a process of its own that prints "ready", then a line for every line on its stdin."""

    def __init__(self, module, words, environment=None):
        self.name = " ".join(str(word) for word in (module, *words))
        command = [sys.executable, "-m", module, *(str(word) for word in words)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )
        while self._line() != "ready":  # some libraries print first
            pass

    def ask(self):
        """Have it do a round; return its line."""
        with suppress(BrokenPipeError):  # no line will come then
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return self._line()

    def close(self):
        """End it; return its peak memory in MB."""
        self._process.stdin.close()
        memory = _wait(self._process)
        self._process.stdout.close()
        return memory

    def _line(self):
        line = self._process.stdout.readline()
        if not line:
            raise InputError(f"the worker ended: {self.name}")
        return line.strip()


def answer(lines):
    """Be a worker: what ``lines`` yields goes to stdout at once."""
    for line in lines:
        print(line, flush=True)


def own_megabytes(pid):
    """Return what of a process's memory is in no mapped file."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return 0.0  # it has ended


def _watch(process):
    """Wait for a process's end; return the peak of its own memory in MB, looked at several times a second."""
    most = 0.0
    while process.poll() is None:
        most = max(most, own_megabytes(process.pid))
        time.sleep(0.05)
    return most


def _wait(process):
    """Wait for a process's end; return its peak memory in MB."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss / 1024
