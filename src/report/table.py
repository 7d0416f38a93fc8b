"""Results of many categories beside the published ones, as CSV, JSON and Markdown, and the table of docs/accuracy.md.

python -m src.report.table --results docs/results.json --readme docs/accuracy.md docs/zh/accuracy.md
"""

import argparse
import csv
import io
import sys
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from typing import Any

from ..config import build_parser
from ..files import atomic_path, read_json, write_json
from ..utils import InputError, run_entry_point

METRICS = ("pixel_auroc", "image_auroc", "pro")
PUBLISHED_PATH = Path(__file__).with_name("published.json")
SOURCES = ("model_zoo", "paper_code")
_HEADING = (
    "| category | pixel AUROC | image AUROC | PRO "
    "| model zoo (pixel / image) | paper's code (pixel / image / PRO) |\n| --- | --- | --- | --- | --- | --- |\n"
)


def read_results(path: Path) -> dict:
    """Read a category's results.json.

    Raises:
        InputError: it is missing or damaged, or a metric in it is neither a number from 0 to 1 nor null.
    """
    content = read_json(path)
    _check_metrics({metric: content.get(metric, "nothing") for metric in METRICS}, str(path))
    return content


def _check_metrics(found: dict, where: str) -> None:
    for metric in METRICS:
        value = found.get(metric)
        if value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
            raise InputError(f"{where}: {metric} {value!r}, expected a number from 0 to 1, or null")


def collect(results: Iterable[tuple[str, dict]]) -> dict:
    """Return the rows of a table: each category's metrics (None where undefined or not run), then their mean.

    Args:
        results: category and the content of its results.json; empty where there is none.
    """
    rows: list[dict[str, Any]] = [
        {"category": name, **{metric: found.get(metric) for metric in METRICS}} for name, found in results
    ]
    mean: dict[str, object] = {"category": "mean"}
    for metric in METRICS:
        values = [row[metric] for row in rows if row[metric] is not None]
        mean[metric] = sum(values) / len(values) if values else None
    return {"categories": rows, "mean": mean}


def with_published(table: dict, published: dict) -> dict:
    """Return a table with the published values, and the differences from them, in every row.

    A published mean is over all 15 categories of MVTec AD; beside another set of categories it is left out, and a
    mean of some of these 15, which may be the easy ones, is not put beside it.
    """
    complete = {row["category"] for row in table["categories"]} == set(published["categories"])
    partial = [metric for metric in METRICS if any(row[metric] is None for row in table["categories"])]
    mean = table["mean"] | (dict.fromkeys(partial) if complete else {})

    def extend(row: dict, is_mean: bool) -> dict:
        extended = dict(row)
        for source in SOURCES:
            for metric, values in published[source].items():
                if metric not in METRICS:
                    continue
                value = values.get(row["category"]) if complete or not is_mean else None
                extended[f"{source}_{metric}"] = value
                known = value is not None and row[metric] is not None
                extended[f"{source}_{metric}_difference"] = row[metric] - value if known else None
        return extended

    return {"categories": [extend(row, False) for row in table["categories"]], "mean": extend(mean, True)}


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _own(row: dict, metric: str) -> str:
    """A metric of this project, with its difference from the model zoo's, or else the paper's code's."""
    if row[metric] is None:
        return ""
    differences = [row.get(f"{source}_{metric}_difference") for source in SOURCES]
    difference = next((value for value in differences if value is not None), None)
    return f"{row[metric]:.4f}" + ("" if difference is None else f" ({difference:+.3f})")


def _cited(row: dict, source: str) -> str:
    metrics = [metric for metric in METRICS if f"{source}_{metric}" in row]
    if all(row[f"{source}_{metric}"] is None for metric in metrics):
        return ""
    return " / ".join(_number(row[f"{source}_{metric}"], 3) for metric in metrics)


def to_markdown(table: dict, *, heading: str = _HEADING) -> str:
    """Return a table with published values as Markdown; in brackets the difference from the first published value."""
    lines = []
    for row in [*table["categories"], table["mean"]]:
        name = escape(row["category"], quote=False).replace("|", "\\|")  # of one's own categories, any file name
        cells = [name, *(_own(row, metric) for metric in METRICS), *(_cited(row, s) for s in SOURCES)]
        lines.append("|" + "".join(f" {cell} |" if cell else " |" for cell in cells) + "\n")
    return heading + "".join(lines)


def to_csv(table: dict) -> str:
    """Return a table as CSV, one line per category and the mean; empty where a value is not known."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table["mean"]), lineterminator="\n")
    writer.writeheader()
    writer.writerows([*table["categories"], table["mean"]])
    return text.getvalue()


def write_tables(folder: Path, results: Iterable[tuple[str, dict]]) -> dict:
    """Write results.json, results.csv and results.md; return the table."""
    table = with_published(collect(results), read_json(PUBLISHED_PATH))
    write_json(folder / "results.json", table)
    for name, text in (("results.csv", to_csv(table)), ("results.md", to_markdown(table))):
        _write_text(folder / name, text)
    return table


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")  # file names need not be text


def readme_table(results: dict, *, heading: str) -> str:
    """Return the table of docs/accuracy.md: all categories of MVTec AD, with this project's own numbers if any.

    Below a category's row stands that of ``--recipe recommended``, if it was trained so too; the mean is without them.
    """
    published = read_json(PUBLISHED_PATH)
    table = with_published(
        collect((name, results["categories"].get(name, {})) for name in published["categories"]), published
    )
    recommended = {
        row["category"]: row | {"category": f"{row['category']}, recommended"}
        for row in with_published(collect(results.get("recommended", {}).items()), published)["categories"]
    }
    rows = []
    for row in table["categories"]:
        rows += [row, recommended[row["category"]]] if row["category"] in recommended else [row]
    return to_markdown({"categories": rows, "mean": table["mean"]}, heading=heading)


def replace_marked(path: Path, name: str, replace: Callable[[str], str]) -> None:
    """Replace what stands in a page between the marks ``<!-- name: begin -->`` and ``<!-- name: end -->``.

    Args:
        replace: what stands there to what shall.

    Raises:
        InputError: the marks are not there, or the file is no UTF-8.
    """
    marks = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text: {error}") from error
    head, begin, rest = text.partition(marks[0])
    before, end, foot = rest.partition(marks[1])
    if not begin or not end:
        raise InputError(f"{path}: has no lines {marks[0]} and {marks[1]}")
    _write_text(path, f"{head}{begin}\n\n{replace(before.strip()).strip()}\n\n{end}{foot}")


def update_readme(path: Path, results: dict) -> None:
    """Replace the rows of the table of results in a page; its heading stays.

    Raises:
        InputError: its marks are not there.
    """

    def replace(before: str) -> str:
        return readme_table(results, heading="".join(line + "\n" for line in before.splitlines()[:2]))

    replace_marked(path, "results", replace)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = build_parser("Write the table of results into pages of docs.")
    parser.add_argument("--results", type=Path, required=True, metavar="FILE", help="JSON with the project's results")
    parser.add_argument("--readme", type=Path, required=True, nargs="+", metavar="FILE", help="files to write it into")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> int:
    """Update; return the exit status."""
    results = read_json(args.results)
    for key, categories in (("categories", results.get("categories")), ("recommended", results.get("recommended", {}))):
        if not isinstance(categories, dict) or not all(isinstance(found, dict) for found in categories.values()):
            raise InputError(f"{args.results}: expected an object {key!r}, of category to an object of metrics")
        for name, found in categories.items():
            _check_metrics(found, f"{args.results}: {name}")
    for path in args.readme:
        update_readme(path, results)
    return 0


if __name__ == "__main__":
    sys.exit(run_entry_point(main, parse_args()))
