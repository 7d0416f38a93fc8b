"""JSON files and folders of any content are read or refused.

More: STPM_FUZZ_EXAMPLES=20000 bash scripts/run_tests.sh tests/test_any_files.py
"""

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from src.utils import read_json
from tests.conftest import examples, result_or_error


@examples(150)
@given(st.binary(max_size=60) | st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b"\xef\xbb\xbf{}"]))
def test_any_bytes_as_json(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_bytes(content)
        found = result_or_error(read_json, path)
        assert isinstance(found, dict) or str(found).startswith(f"{path}: ")
