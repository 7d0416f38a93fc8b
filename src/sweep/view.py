"""What a sweep shows: a live table on a terminal, a line for every change elsewhere."""

import sys
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from ..utils import LOGGER
from .job import Job

_LIVE_ROWS = 40  # what fits a terminal; of more, those that are running, failed and next


class SweepView:
    """Shows jobs while they run. A context manager.

    Args:
        jobs: shown in this order.
    """

    def __init__(self, jobs: list[Job]):
        self.jobs = jobs
        self.ended = 0
        self.live = Live(console=Console(stderr=True), refresh_per_second=1) if sys.stderr.isatty() else None

    def __enter__(self) -> "SweepView":
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def show(self, job: Job) -> None:
        """Show that a job's state has changed, or that it is late."""
        text = job.state
        if job.state in ("finished", "skipped"):
            metrics = job.metrics()
            values = [f"{name} {_number(metrics.get(name))}" for name in ("pixel_auroc", "image_auroc", "pro")]
            text += f"  {'  '.join(values) if metrics else '(no test images)'}"
        elif job.state == "waiting":
            text = f"to be tried once more  ({job.failures[-1]})"
        elif job.is_late():
            text = "waits for resources: no machine of Ray's has enough free cores, or a free card"
        elif job.state == "failed":
            text += f"  ({job.failures[-1]})"
        self.ended += job.state in ("finished", "skipped", "failed")
        line = f"[{self.ended}/{len(self.jobs)}] {job.category}: {text}"
        if self.live and sys.stdout.isatty():
            self.live.console.print(line, markup=False, highlight=False)  # above the table, which stays in place
        else:
            LOGGER.info("%s", line)

    def refresh(self) -> None:
        """Show how far the running jobs are."""
        if self.live:
            self.live.update(self._table())

    def _table(self) -> Table:
        table = Table("category", "state", "epoch", "loss", "ETA", "pixel AUROC", "image AUROC", "PRO")
        order = {"running": 0, "failed": 1, "waiting": 2, "finished": 3, "skipped": 3}
        rows = self.jobs
        if len(rows) > _LIVE_ROWS:
            rows = sorted(rows, key=lambda job: order[job.state])[:_LIVE_ROWS]
        for job in rows:
            progress = job.progress() if job.state == "running" else ("", "", "")
            metrics = job.metrics()
            numbers = [_number(metrics.get(name)) for name in ("pixel_auroc", "image_auroc", "pro")]
            table.add_row(job.category, job.state, *progress, *numbers)
        return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
