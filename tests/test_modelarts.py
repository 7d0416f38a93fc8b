"""--modelarts True with a fake moxing: obs://bucket is a local folder."""

import fcntl
import os
import shutil
import sys
import types
from pathlib import Path

import pytest

import test as evaluation
import train
from src import modelarts
from src.config import build_parser
from src.model.sidecar import sidecar_path
from src.utils import InputError
from tests.conftest import forget_process

FLAG_NAMES = ("modelarts", "data_url", "eval_url", "ckpt_path", "train_url", "report", "resume")


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    folder = tmp_path / "bucket"
    folder.mkdir()

    def local(url):
        return url.replace("obs://bucket", str(folder))

    moxing = types.ModuleType("moxing")
    moxing.file = types.SimpleNamespace(
        exists=lambda url: Path(local(url)).exists(),
        is_directory=lambda url: Path(local(url)).is_dir(),
        copy_parallel=lambda a, b: shutil.copytree(local(a), local(b), dirs_exist_ok=True),
        copy=lambda a, b: shutil.copy(local(a), local(b)),
    )
    monkeypatch.setitem(sys.modules, "moxing", moxing)
    monkeypatch.setattr(modelarts, "LOCAL_ROOT", tmp_path / "cache")
    return folder


def arguments(*words):
    return build_parser("", FLAG_NAMES).parse_args(words)


def test_copies(bucket, tmp_path):
    """Inputs are fetched, and outputs copied back, after a failure too."""
    (bucket / "data/bottle").mkdir(parents=True)
    (bucket / "data/bottle/a.png").write_text("picture")
    (bucket / "weights").mkdir()
    (bucket / "weights/t.ckpt").write_text("weights")
    seen = {}

    @modelarts.staged(inputs=("data_url", "ckpt_path"), output="train_url")
    def main(args):
        with open(f"{args.data_url}/bottle/a.png") as picture, open(args.ckpt_path) as weights:
            seen.update(picture=picture.read(), weights=weights.read())
        assert "obs://" not in args.train_url
        out = tmp_path / "cache/train_url/bottle"
        out.mkdir(parents=True)
        (out / "last.ckpt").write_text("model")
        raise InputError("stopped half-way")

    args = arguments("--modelarts", "True", "--data_url", "obs://bucket/data",
                     "--ckpt_path", "obs://bucket/weights/t.ckpt", "--train_url", "obs://bucket/out")  # fmt: skip
    with pytest.raises(InputError):
        main(args)
    assert seen == {"picture": "picture", "weights": "weights"}
    assert (bucket / "out/bottle/last.ckpt").read_text() == "model", "outputs are kept after a failure too"


def test_resume(bucket, tmp_path):
    """It fetches the earlier output."""
    (bucket / "out/bottle").mkdir(parents=True)
    (bucket / "out/bottle/resume.ckpt").write_text("state")

    @modelarts.staged(inputs=(), output="train_url")
    def main(args):
        assert (tmp_path / "cache/train_url/bottle/resume.ckpt").read_text() == "state"
        return 0

    assert main(arguments("--modelarts", "True", "--resume", "--train_url", "obs://bucket/out")) == 0


@pytest.mark.parametrize("name", ["widget_last.ckpt", "widget.mindir", "widget.onnx"])
def test_model(name, bucket):
    """It comes with its sidecar, and with nothing else."""
    for file in (name, Path(name).with_suffix(".json").name, "other.json"):
        (bucket / file).write_text(file)
    model = Path(modelarts.fetch(f"obs://bucket/{name}", "ckpt_path"))
    assert sidecar_path(model).read_text() == sidecar_path(Path(name)).name
    assert len(list(model.parent.iterdir())) == 2
    sidecar_path(bucket / name).unlink()
    model = Path(modelarts.fetch(f"obs://bucket/{name}", "ckpt_path"))
    assert list(model.parent.iterdir()) == [model], "not the one fetched before"


@pytest.mark.parametrize("url", ["obs://bucket/x", "s3://bucket/x"])
def test_remote_paths(url):
    assert modelarts.is_remote(url)
    assert not modelarts.is_remote(f"/{url}")


def test_absent_input(bucket):
    """It is named."""
    with pytest.raises(InputError, match=r"obs://bucket/none\.ckpt: does not exist in object storage"):
        modelarts.fetch("obs://bucket/none.ckpt", "ckpt_path")


def test_earlier_run(bucket):
    """Nothing of one in the same container is left."""
    (bucket / "data").mkdir()
    (bucket / "data/a.png").write_text("picture")
    (bucket / "data/b.png").write_text("picture")

    @modelarts.staged(inputs=("data_url",), output="train_url")
    def main(args):
        seen.append(sorted(path.name for path in Path(args.data_url).iterdir()))
        (Path(args.train_url) / f"run{len(seen)}").mkdir(parents=True)
        return 0

    seen = []
    words = ("--modelarts", "True", "--data_url", "obs://bucket/data", "--train_url")
    main(arguments(*words, "obs://bucket/out"))
    (bucket / "data/b.png").unlink()
    main(arguments(*words, "obs://bucket/other"))
    assert seen == [["a.png", "b.png"], ["a.png"]]
    assert [path.name for path in (bucket / "other").iterdir()] == ["run2"]
    main(arguments(*words, "obs://bucket/out", "--resume"))
    assert sorted(path.name for path in (bucket / "out").iterdir()) == ["run1", "run3"]
    main(arguments(*words, "obs://bucket/new", "--resume"))
    assert [path.name for path in (bucket / "new").iterdir()] == ["run4"]


def test_second_run(bucket, tmp_path):
    """One beside another is refused."""
    (bucket / "data").mkdir()
    modelarts.fetch("obs://bucket/data", "data_url")
    forget_process()
    with open(tmp_path / "cache/.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as another process would, which had left its number there
        with pytest.raises(InputError, match=f"is in use by process {os.getpid()} on "):
            modelarts.fetch("obs://bucket/data", "data_url")


def test_without_resume(bucket, tmp_path):
    """What an earlier run left at the output's place stays there, and does not come here."""
    (bucket / "out/bottle").mkdir(parents=True)
    (bucket / "out/bottle/resume.ckpt").write_text("state")

    @modelarts.staged(inputs=(), output="train_url")
    def main(args):
        assert not Path(args.train_url).exists()
        return 0

    assert main(arguments("--modelarts", "True", "--train_url", "obs://bucket/out")) == 0
    assert (bucket / "out/bottle/resume.ckpt").exists()


@pytest.mark.parametrize(
    ("url", "expected"),
    [("obs://b/x", True), ("s3://b/x", True), ("/obs://b", False), ("http://b", False), ("obs:/b", False), ("", False)],
)
def test_remote(url, expected):
    assert modelarts.is_remote(url) == expected


def test_same_url(bucket, tmp_path):
    """It is fetched once for both flags."""
    (bucket / "data").mkdir()
    (bucket / "tests").mkdir()

    @modelarts.staged(inputs=("data_url", "eval_url"), output="train_url")
    def main(args):
        seen.append((args.data_url, args.eval_url))
        return 0

    seen = []
    for other in ("data", "tests"):
        main(arguments("--modelarts", "True", "--data_url", "obs://bucket/data", "--eval_url", f"obs://bucket/{other}"))
    data, tests = str(tmp_path / "cache/data_url"), str(tmp_path / "cache/eval_url")
    assert seen == [(data, data), (data, tests)]


def test_more_outputs(bucket, tmp_path, monkeypatch):
    """Every one is copied back, and none is written without --modelarts."""
    monkeypatch.chdir(tmp_path)

    @modelarts.staged(inputs=(), output="train_url", more_outputs=("report",))
    def main(args):
        Path(args.report).mkdir()
        (Path(args.report) / "report.html").write_text("page")
        return 0

    main(arguments("--modelarts", "True", "--report", "obs://bucket/report"))
    assert (bucket / "report/report.html").read_text() == "page"
    for flag in ("--report", "--train_url"):
        with pytest.raises(InputError, match=f"{flag} obs://bucket/x: object storage is written to with --modelarts"):
            main(arguments(flag, "obs://bucket/x"))
    assert not (tmp_path / "obs:").exists()


def test_outputs_of_evaluation(bucket, refused, tmp_path, monkeypatch):
    """All of them are staged."""
    (bucket / "data/widget/test/good").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for flag in ("--out_dir", "--report", "--save_sample_path"):
        words = ("--data_url", bucket / "data", "--category", "widget", "--ckpt_path", "t.ckpt", flag, "obs://bucket/x")
        assert "--modelarts True only" in refused(evaluation, *words)


def test_local_paths(monkeypatch):
    """They need no moxing, nor does anything with the switch left off."""
    monkeypatch.setitem(sys.modules, "moxing", None)

    @modelarts.staged(inputs=("data_url",), output="train_url")
    def main(args):
        return args.data_url

    assert main(arguments("--data_url", "obs://bucket/data")) == "obs://bucket/data"
    assert main(arguments("--modelarts", "True", "--data_url", "here")) == "here"
    with pytest.raises(InputError, match="no module moxing here"):
        main(arguments("--modelarts", "True", "--data_url", "obs://bucket/data"))


@pytest.mark.parametrize("name", ["train", "test"])
def test_entry_points(name, bucket, refused, tmp_path):
    """The real main sees local paths: its error names the fetched copy."""
    module = __import__(name)
    (bucket / "data/widget/train/good").mkdir(parents=True)
    (bucket / "weights").mkdir()
    (bucket / "weights/t.ckpt").write_text("weights")
    ckpt_flag = "--pre_ckpt_path" if name == "train" else "--ckpt_path"
    message = refused(module, "--modelarts", "True", "--data_url", "obs://bucket/data", "--category", "widget",
                      ckpt_flag, "obs://bucket/weights/t.ckpt")  # fmt: skip
    assert str(tmp_path / "cache") in message


def test_earlier_model(bucket, refused):
    """--init_from is fetched, too."""
    (bucket / "data").mkdir()
    message = refused(train, "--modelarts", "True", "--data_url", "obs://bucket/data", "--category", "widget",
                      "--pre_ckpt_path", "random", "--init_from", "obs://bucket/none.ckpt")  # fmt: skip
    assert "obs://bucket/none.ckpt: does not exist in object storage" in message
