"""Put a benchmark's table into a README."""

from pathlib import Path


def put_into(readme: Path, name: str, table: str) -> None:
    """Replace what stands between the markers ``<!-- name: begin -->`` and ``<!-- name: end -->``."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = readme.read_text(encoding="utf-8").split(begin)
    readme.write_text(f"{before}{begin}\n\n{table}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")
