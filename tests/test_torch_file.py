"""PyTorch's files of weights, read without PyTorch: what both read is equal, the rest is refused.

More: STPM_FUZZ_EXAMPLES=20000 bash scripts/run_tests.sh tests/test_torch_file.py
"""

import io
import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.torch_file import read_state_dict
from src.utils import InputError
from tests.conftest import examples, result_or_error, run_python

BASE = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
NUMBERS = torch.tensor([0, 1, -1, 1 / 3, 1e-6, 3e38, float("inf"), float("nan"), -0.0], dtype=torch.float64)
TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WHOLE = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool)
STATES = {
    "types": {
        **{f"a.{kind}": NUMBERS.to(kind) for kind in TYPES},
        **{f"b.{kind}": torch.tensor([0, 1, 2, 77, 100]).to(kind) for kind in WHOLE},
        "c": torch.tensor([2**24 + 1, 2**62 + 1, -(2**63)]),
        "d": NUMBERS * 1e200,
    },
    "shapes": {"a": torch.tensor(7.5), "b": torch.empty(0, 3), "c": BASE[:0], "d": torch.ones(1, 1, 1), "e": BASE},
    "strides": {
        "a": BASE.permute(2, 0, 1),
        "b": BASE[:, 1:, ::2],
        "c": torch.tensor([3.0]).expand(4, 5),
        "d": BASE.to(memory_format=torch.contiguous_format)[1, 2, 3],
        "e": BASE.bfloat16()[..., 1].t(),
    },
    "shared": {"a": BASE, "b": BASE[1], "c": BASE.reshape(-1)[5:9], "d": BASE},
    "parameters": OrderedDict(a=torch.nn.Parameter(BASE.clone()), b=torch.nn.Parameter(BASE[0], requires_grad=False)),
    "layers": torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3)).state_dict(),
    "checkpoint": {
        "epoch": 3,
        "best": 0.5,
        "note": "caf\u00e9",
        "flags": [True, False, None, -(10**12)],
        "optimizer": {"state": {0: {"momentum": BASE}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]},
        "state_dict": {"a": BASE},
    },
    "numbered": {0: BASE, 1.5: BASE, None: BASE},
}


def save(path, content, *, legacy=False, **options):
    torch.save(content, path, _use_new_zipfile_serialization=not legacy, **options)
    return path


def packed(path, records, compression=zipfile.ZIP_STORED):
    """A zip archive of these records, as torch.save would name them."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in records.items():
            archive.writestr(f"archive/{name}", data)
    return path


def unpacked(path):
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def check_equal(path):
    """What is read is what PyTorch reads and converts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged number of the pickle's protocol
        expected = torch.load(path, weights_only=True)
    expected = expected.get("state_dict", expected)
    found = read_state_dict(path)
    assert list(found) == [str(name) for name in expected]
    for array, tensor in zip(found.values(), expected.values(), strict=True):
        assert array.dtype == np.float32
        assert array.shape == tuple(tensor.shape)
        assert array.tobytes() == tensor.detach().float().numpy().tobytes()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", STATES)
def test_as_torch(tmp_path, name, legacy):
    check_equal(save(tmp_path / "a.pth", STATES[name], legacy=legacy))


def test_real_weights(shared):
    check_equal(shared / "weights/resnet18_imagenet_trunk.pth")


def test_without_torch(tmp_path):
    """PyTorch is not even looked for."""
    path = save(tmp_path / "a.pth", STATES["layers"])
    code = (
        "import sys; sys.modules['torch'] = None; from pathlib import Path; from src.torch_file import *; "
        f"print(len(read_state_dict(Path({str(path)!r}))))"
    )
    done = run_python("-c", code)
    assert (done.stdout.strip(), done.stderr) == ("7", "")


@pytest.mark.parametrize("order", ["little", "big", None])
def test_byte_order(tmp_path, order):
    """Of the record that says so; files from before there was one have the lowest byte first."""
    state = {"a": NUMBERS, "b": NUMBERS.bfloat16(), "c": torch.tensor([1, -2])}
    records = unpacked(save(tmp_path / "a.pth", state))
    del records["byteorder"]
    if order:
        records["byteorder"] = order.encode()
    if order == "big":
        for key, width in (("0", 8), ("1", 2), ("2", 8)):
            data = np.frombuffer(records[f"data/{key}"], f"u{width}").byteswap()
            records[f"data/{key}"] = data.tobytes()
    path = packed(tmp_path / "b.pth", records)
    check_equal(path)
    assert read_state_dict(path)["c"].tolist() == [1, -2]


def test_views_of_old(tmp_path):
    """A storage of PyTorch before 0.4 may be a view of another: key, first number, how many."""
    path = save(tmp_path / "a.pth", {"a": torch.arange(6.0)}, legacy=True)
    content = path.read_bytes()
    # ..., 'cpu', 6, None) -> ('0', 2, 4) in place of None; the tensor then has the 4
    start = content.index(b"K\x06Ntq")
    end = content.index(b"K\x06\x85", start)
    assert content[end : end + 3] == b"K\x06\x85"
    content = content[:end] + b"K\x04\x85" + content[end + 3 :]
    content = content.replace(b"K\x06Nt", b"K\x06(X\x01\x00\x00\x000K\x02K\x04tt", 1)
    path.write_bytes(content)
    check_equal(path)
    assert read_state_dict(path)["a"].tolist() == [2, 3, 4, 5]


class Subclass(torch.Tensor):
    pass


REFUSED = {
    "sparse": (lambda: BASE.to_sparse(), "it holds torch._utils._rebuild_sparse_tensor, which is no weights"),
    "complex": (lambda: torch.zeros(2, dtype=torch.complex64), "it holds torch.ComplexFloatStorage"),
    "negative": (lambda: torch.zeros(2, dtype=torch.complex64).conj().imag, "a kind that is not known"),
    "quantised": (lambda: torch.quantize_per_tensor(BASE, 1, 0, torch.qint8), "it holds torch._utils._rebuild_qtensor"),
    "float8": (lambda: BASE.to(torch.float8_e4m3fn), "it holds torch._utils._rebuild_tensor_v3"),
    "subclass": (lambda: BASE.as_subclass(Subclass), "it holds torch._tensor._rebuild_from_type_v2"),
    "model": (lambda: torch.nn.Linear(2, 2), r"it holds torch.nn.modules.linear.Linear, .*state_dict\(\)"),
    "function": (lambda: print, r"it holds __builtin__\.print"),
    "set": (lambda: {1}, r"it holds __builtin__\.set"),
    "tuple for a name": (lambda: {(1, 2): BASE}, "under what is no name"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path, name):
    make, words = REFUSED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantisation is to go
        path = save(tmp_path / "a.pth", {"a": make()})
    with pytest.raises(InputError, match=rf"a\.pth: not a readable file of PyTorch weights: .*({words})"):
        read_state_dict(path)


def test_other_protocol(tmp_path):
    """PyTorch does not read it either, without leave to execute."""
    path = save(tmp_path / "a.pth", {"a": BASE}, pickle_protocol=4)
    with pytest.raises(InputError, match="its pickle has the operation FRAME"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1], "found list"),
        (BASE, "found a tensor"),
        ({}, "found dict"),
        ({"a": BASE, "lr": 0.1}, "entry 'lr' is float"),
        ({"state_dict": {"a": {"b": BASE}}}, "entry 'a' is dict"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_state_dict(tmp_path, content, words):
    with pytest.raises(InputError, match=rf"a\.pth: expected a state_dict.* {words}"):
        read_state_dict(save(tmp_path / "a.pth", content))


def test_repeated_numbers(tmp_path):
    """A file of a few bytes must not become an array of terabytes."""
    with pytest.raises(InputError, match="repeat their numbers too often"):
        read_state_dict(save(tmp_path / "a.pth", {"a": torch.zeros(1).expand(2**20, 2**20)}))


RECORDS = {
    "no pickle": (lambda records: records.pop("data.pkl"), "with 0 data.pkl"),
    "no numbers": (lambda records: records.pop("data/0"), "no item named 'archive/data/0'"),
    "too few numbers": (lambda records: records.update({"data/0": b"abcd"}), "has 4 bytes, expected 96"),
    "too many numbers": (lambda records: records.update({"data/0": bytes(100)}), "has 100 bytes, expected 96"),
    "another order": (lambda records: records.update(byteorder=b"middle"), "byte order is b'middle'"),
}


@pytest.mark.parametrize("name", RECORDS)
def test_records(tmp_path, name):
    """Of an archive that lacks some, or has wrong ones."""
    change, words = RECORDS[name]
    records = unpacked(save(tmp_path / "a.pth", {"a": BASE}))
    change(records)
    with pytest.raises(InputError, match=words):
        read_state_dict(packed(tmp_path / "b.pth", records))


def test_compressed(tmp_path):
    """A bomb could be."""
    records = unpacked(save(tmp_path / "a.pth", {"a": BASE}))
    with pytest.raises(InputError, match="it is compressed"):
        read_state_dict(packed(tmp_path / "b.pth", records, zipfile.ZIP_DEFLATED))


def test_flipped_number(tmp_path):
    """The archive's checksums tell; PyTorch does not look at them."""
    path = save(tmp_path / "a.pth", {"a": BASE})
    content = bytearray(path.read_bytes())
    content[content.index(BASE.numpy().tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="Bad CRC-32"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("offset", "shape", "stride", "is_inside"),
    [
        (0, 24, 1, True),
        (0, 25, 1, False),
        (23, 1, 1, True),
        (24, 1, 1, False),
        (24, 0, 1, True),
        (0, 2, 23, True),
        (0, 2, 24, False),
        (3, 3, 10, True),
        (4, 3, 10, False),
    ],
)
def test_beyond_storage(tmp_path, offset, shape, stride, is_inside):
    """What lies there in memory is nobody's business."""
    program = (
        b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n"
        b"FloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x18tQK%cK%c\x85K%c\x85\x89}tRs."
    )
    records = {"data.pkl": program % (offset, shape, stride), "version": b"3\n", "data/0": BASE.numpy().tobytes()}
    path = packed(tmp_path / "a.pth", records)
    if is_inside:
        check_equal(path)
    else:
        with pytest.raises(InputError, match="reaches beyond the 24 numbers of its storage"):
            read_state_dict(path)


TWICE = b"h\x00h\x00\x86q\x00"  # the tuple of memo 0, twice
BOMBS = {
    "a name that doubles": b"\x80\x02}(K\x01\x85q\x00" + TWICE * 60 + b"K\x01u.",
    "a shape that doubles": b"\x80\x02(K\x01\x85q\x00" + TWICE * 60 + b"Q.",
    "a deep name": b"\x80\x02}K\x01" + b"\x85" * 100_000 + b"K\x01s.",
    "a memo of gigabytes": b"\x80\x02]r\xff\xff\xff\xff.",
    "a text of gigabytes": b"\x80\x02X\xff\xff\xff\xff.",
    "no end": b"\x80\x02]",
    "nothing below": b"\x80\x020.",
    "a mark too few": b"\x80\x02t.",
    "a tuple too large": b"\x80\x02K\x01\x87.",
    "a call of a number": b"\x80\x02K\x01)R.",
    "a call of a type": b"\x80\x02ctorch\nFloatStorage\n)R.",
    "attributes of a function": b"\x80\x02ccollections\nOrderedDict\n}b.",
    "a function in a module's module": b"\x80\x02ccollections OrderedDict\nx\n)R.",
    "another object": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "an extension": b"\x80\x02\x82\x01.",
    "an instance": b"\x80\x02(ios\nsystem\n.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(tmp_path, name):
    """Pickles that would take the memory, the time or the stack, or that make something else."""
    path = packed(tmp_path / "a.pth", {"data.pkl": BOMBS[name], "version": b"3\n"})
    with pytest.raises(InputError):
        read_state_dict(path)


def samples():
    found = []
    for legacy in (False, True):
        for name in ("types", "strides", "shared", "layers"):
            buffer = io.BytesIO()
            torch.save(STATES[name], buffer, _use_new_zipfile_serialization=not legacy)
            found.append(buffer.getvalue())
    return found


SAMPLES = samples()


@st.composite
def damaged(draw):
    """A file of weights with a few bytes changed, cut out or put in."""
    content = bytearray(draw(st.sampled_from(SAMPLES)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        what = draw(st.sampled_from(("change", "cut", "insert", "end")))
        if what == "change":
            content[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif what == "cut":
            del content[at : at + draw(st.integers(1, 40))]
        elif what == "insert":
            content[at:at] = draw(st.binary(max_size=8))
        else:
            del content[at:]
    return bytes(content)


def check_any(path):
    """It is read or refused; and where PyTorch reads it, too, both have the same."""
    found = result_or_error(read_state_dict, path)
    if isinstance(found, InputError):
        assert str(path) in str(found)
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(path, weights_only=True)
    except Exception:
        return
    check_equal(path)


@examples(150)
@given(damaged())
def test_any_damage(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    path.write_bytes(content)
    check_any(path)


OPERATIONS = [
    *(b")", b"]", b"}", b"(", b"t", b"\x85", b"\x86", b"\x87", b"N", b"\x88", b"\x89", b"s", b"u", b"a", b"e"),
    *(b"R", b"b", b"Q", b"0", b"2", b"\x81", b"q\x00", b"q\x01", b"h\x00", b"h\x01", b"K\x00", b"K\x02", b"K\x18"),
    *(b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n"),
    *(b"X\x07\x00\x00\x00storage", b"X\x01\x00\x00\x000", b"X\x03\x00\x00\x00cpu", b"cos\nsystem\n"),
    b"J\xff\xff\xff\xff",
    *(b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x18tQ",),
    *(b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
      b"X\x03\x00\x00\x00cpuK\x18tQK\x02K\x03\x85K\x02\x85\x89}tR",),
    *(b"}(X\x01\x00\x00\x00a", b"u."),
]  # fmt: skip


@examples(150)
@given(st.lists(st.sampled_from(OPERATIONS), max_size=12))
def test_any_program(tmp_path_factory, program):
    """Pickles of any operations, in any order."""
    path = tmp_path_factory.getbasetemp() / "program.pth"
    numbers = struct.pack("<24f", *range(24))
    packed(path, {"data.pkl": b"\x80\x02" + b"".join(program) + b".", "data/0": numbers, "version": b"3\n"})
    check_any(path)


@pytest.mark.parametrize("content", [b"PK\x03\x04", b"\x80\x02", pickle.dumps({"a": 1}), b"<html>", bytes(600)])
def test_other_files(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.pth: not a readable file of PyTorch weights: "):
        read_state_dict(tmp_path / "a.pth")
