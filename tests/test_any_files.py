"""JSON files and folders of any content are read or refused.

More: STPM_FUZZ_EXAMPLES=20000 bash scripts/run_tests.sh tests/test_any_files.py
"""

import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from src.utils import read_json, write_json
from tests.conftest import examples, result_or_error


@examples(150)
@given(st.binary(max_size=60) | st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b"\xef\xbb\xbf{}"]))
def test_any_bytes_as_json(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_bytes(content)
        found = result_or_error(read_json, path)
        assert isinstance(found, dict) or str(found).startswith(f"{path}: ")


# any bytes but "/" and NUL are a file name, and some of them are no text
NAMES = st.sampled_from(["0", "1", "1_mask", "0_mask", "ä", "a b", "\udcff", "a\n", ".h"]) | st.binary(
    min_size=1, max_size=6
).map(lambda name: os.fsdecode(name.replace(b"/", b"+").replace(b"\0", b"0")))


@examples(100)
@given(st.dictionaries(NAMES, NAMES | st.floats(allow_nan=False, allow_infinity=False), max_size=4))
def test_what_is_written_as_json_is_read_again(content):
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "a.json", content)
        assert read_json(Path(folder) / "a.json") == content
