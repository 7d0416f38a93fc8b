"""The scripts with the vendor's package of MindSpore Lite: one that computes, and conversion for Ascend."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from src.data.view import square
from src.files import file_sha256
from src.model.model_file import inspect_model, load_network
from src.model.sidecar import new_sidecar, record_export
from src.utils import InputError
from tests.conftest import ROOT
from tests.test_infer import need_sdk
from tests.test_scripts import run_script
from tests.vendor_package import make_package, make_working_package

WHEEL = ROOT / ".cache/mindspore-lite-2.0.0/mindspore_lite"


def test_whole_chain(exported, session_tree, tmp_path):
    """Through MS_LITE_HOME, with a library whose parts stand in the folders of the vendor's package."""
    need_sdk()
    if not WHEEL.exists():  # the script fetches it
        assert run_script("../ascend_310_infer/build.sh", "CPU", cwd=tmp_path).returncode == 0
    package = make_working_package(tmp_path / "mindspore-lite-2.0.0-linux-x64", WHEEL)
    root, here = tmp_path / "a checkout", tmp_path / "here"
    for name in ("ascend_310_infer", "scripts"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("build"))
    for path in (ROOT / "src", *ROOT.glob("*.py")):
        (root / path.name).symlink_to(path)
    here.mkdir()
    arguments = (exported / "widget.mindir", session_tree, "y", 0, "widget")
    done = run_script(root / "scripts/run_310_infer.sh", *arguments, cwd=here, MS_LITE_HOME=str(package),
                      CMAKE_BUILD_TYPE="None", STPM_DAVINCI=str(tmp_path / "absent"))  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "building with MindSpore Lite 2.0.0 (commit 87e30858f9e2) ..." in done.stdout
    assert "inferring on CPU" in done.stdout
    has_test = "selftest" in json.loads((exported / "widget.json").read_text())
    assert ("testing the model on CPU ..." in done.stdout) == has_test
    assert ("no self-test: " in done.stdout) != has_test
    assert (here / "widget/310_infer/selftest.passed").exists() == has_test
    maps = sorted((here / "widget/310_infer/maps").glob("*_0.bin"))
    assert len(maps) == 6
    assert all(np.fromfile(path, np.float32).max() > 0 for path in maps)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "error: DEVICE_TARGET Ascend: MS_LITE_HOME is not set"),
        ({"MS_LITE_HOME": "phones"}, "phones/runtime/lib/libruntime_convert_plugin.so: no such file"),
        ({"MS_LITE_HOME": "empty"}, "empty/runtime/lib/libmindspore-lite.so: no such file"),
    ],
)
def test_refused_packages(session_tree, tmp_path, environment, message):
    """Where there is an Ascend: before anything is written."""
    (tmp_path / "davinci_manager").touch()
    (make_package(tmp_path / "phones") / "runtime/lib/libruntime_convert_plugin.so").unlink()
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.iterdir())
    arguments = (__file__, session_tree, "y", 0, "widget")  # any file will do for a model
    environment = {"MS_LITE_HOME": "", "STPM_DAVINCI": str(tmp_path / "davinci_manager")} | environment
    done = run_script("run_310_infer.sh", *arguments, cwd=tmp_path, **environment)
    assert done.returncode == 1
    assert message in done.stderr
    assert sorted(tmp_path.iterdir()) == before


# --- conversion


@pytest.fixture
def convert(tmp_path):
    """Run the script in an empty folder; return how it ended and the converter's words."""
    here, opp, log = tmp_path / "here", tmp_path / "opp", tmp_path / "calls"
    here.mkdir()
    opp.mkdir()
    model = tmp_path / "a model/widget.mindir"
    model.parent.mkdir()
    model.write_text("no model of any runtime\n")
    model.with_suffix(".onnx").write_text("nor this")
    sidecar = new_sidecar(category="widget", view=square(64), config={"lr": 0.4})
    sidecar = replace(sidecar, threshold=0.5, calibration={"threshold": 0.5})
    checkpoint = {"file": "widget_last.ckpt", "sha256": "0" * 64}
    for suffix in (".onnx", ".mindir"):
        facts = {"inputs": [], "outputs": [], "file_format": suffix[1:].upper(), "batch_size": 4, "versions": {},
                 "largest_relative_difference": 1e-7}  # fmt: skip
        path = model.with_suffix(suffix)
        record_export(path, path, sidecar, checkpoint=checkpoint, facts=facts)
    written = json.loads(model.with_suffix(".json").read_text())
    written["selftest"] = {"input": "pattern-1", "image_size": 64, "score": 0.25, "map": [[4, 4, 0.25]]}
    model.with_suffix(".json").write_text(json.dumps(written))
    package = make_package(tmp_path / "mindspore-lite-2.2.14-linux-x64")

    def run(*arguments, **environment):
        log.write_text("")
        environment = {"MS_LITE_HOME": str(package), "ASCEND_OPP_PATH": str(opp), "CALLS": str(log)} | environment
        done = run_script("convert_ascend.sh", *arguments, cwd=here, STPM_PYTHON=sys.executable, **environment)
        return done, log.read_text().splitlines()

    run.here, run.package, run.model = here, package, model
    return run


def test_conversion(convert):
    """By the documented call; the pipeline takes the converted model, and knows what it was made of."""
    done, words = convert("../a model/widget.mindir")
    assert done.returncode == 0, done.stderr
    flags = dict(word.split("=", 1) for word in words[:6])
    assert flags.keys() == {"--fmk", "--saveType", "--optimize", "--modelFile", "--outputFile", "--configFile"}
    assert [flags[name] for name in ("--fmk", "--saveType", "--optimize")] == ["MINDIR", "MINDIR", "ascend_oriented"]
    folders = words[6].removeprefix("LD_LIBRARY_PATH=").split(":")
    assert f"{convert.package}/tools/converter/lib" in folders
    assert words[7:] == ["[ascend_context]", "precision_mode=enforce_fp32", "op_select_impl_mode=high_precision"]
    out = convert.here / "widget_ascend.mindir"
    assert out.read_bytes() == convert.model.read_bytes() + b"converted\n"
    assert sorted(path.name for path in convert.here.glob("[!.]*")) == [
        "widget_ascend.json", "widget_ascend.log", "widget_ascend.mindir",
    ]  # fmt: skip
    assert (convert.here / "widget_ascend.log").read_text() == "it says this\n"

    source = json.loads(convert.model.with_suffix(".json").read_text())
    found = json.loads(out.with_suffix(".json").read_text())
    facts = source["exports"]["widget.mindir"]
    made = {"from_sha256": facts["sha256"], "precision": "enforce_fp32", "soc_version": None,
            "mindspore_lite": "2.2.14"}  # fmt: skip
    expected = facts | {"sha256": file_sha256(out), "largest_relative_difference": None, "converted": made}
    assert found["exports"] == {"widget_ascend.mindir": expected}
    assert found["threshold"] is None
    assert "calibration" not in found
    same = source.keys() - {"exports", "threshold", "calibration"}
    assert {name: found[name] for name in same} == {name: source[name] for name in same}
    assert "threshold: none; one is calibrated on the device" in done.stdout + done.stderr

    model = inspect_model(out, category="widget")
    assert (model.batch_size, model.threshold) == (4, None)
    with pytest.raises(InputError, match="is converted for Ascend, which the C\\+\\+ program alone reads"):
        load_network(model)
    assert convert("../a model/widget.mindir")[0].returncode == 0, "again"


def test_conversion_for_another_chip(convert):
    done, words = convert(convert.model, "made/bottle.mindir", "Ascend310P3")
    assert done.returncode == 0, done.stderr
    assert words[-2:] == ["[acl_init_options]", "ge.socVersion=Ascend310P3"]
    facts = json.loads((convert.here / "made/bottle.json").read_text())["exports"]["bottle.mindir"]
    assert facts["converted"]["soc_version"] == "Ascend310P3"


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ((), {}, "usage: convert_ascend.sh MINDIR_PATH [OUT [SOC_VERSION]]"),
        (("/nowhere",), {}, "MINDIR_PATH /nowhere: no such file"),
        (("MODEL", "a.mindir", "310"), {}, "SOC_VERSION: expected a chip such as Ascend310, got '310'"),
        (("MODEL",), {"MS_LITE_HOME": ""}, "MS_LITE_HOME is not set: unpack the vendor's cloud-side package"),
        (("MODEL",), {"ASCEND_OPP_PATH": ""}, "CANN's environment is not set: source /usr/local/Ascend/"),
        (("MODEL", "a.ms"), {}, "OUT WHERE/a.ms: expected a name that ends in .mindir"),
        (("MODEL", "MODEL"), {}, "widget.json is the source's; choose another name"),
        (("ONNX",), {}, "widget.onnx: expected a .mindir file"),
    ],
)
def test_conversion_refused(convert, arguments, environment, message):
    """Before the converter runs."""
    real = {"MODEL": convert.model, "ONNX": convert.model.with_suffix(".onnx")}
    before = convert.model.with_suffix(".json").read_bytes()
    done, words = convert(*(real.get(word, word) for word in arguments), **environment)
    assert done.returncode in (1, 2)
    assert message.replace("WHERE", str(convert.here)) in done.stderr
    assert words == []
    assert list(convert.here.iterdir()) == []
    assert convert.model.with_suffix(".json").read_bytes() == before


def test_failed_conversion(convert):
    """What an earlier one made stays."""
    assert convert(convert.model)[0].returncode == 0
    paths = [convert.here / name for name in ("widget_ascend.mindir", "widget_ascend.json")]
    before = [path.read_bytes() for path in paths]
    done, _ = convert(convert.model, CONVERTER_STATUS="5")
    assert done.returncode == 5
    assert "it says this\nerror: stage widget_ascend failed with status 5; its log is" in done.stderr
    done, _ = convert(convert.model, CONVERTER_WRITES_NOTHING="1")
    assert done.returncode == 1
    assert "converter_lite ended with status 0, but wrote no model" in done.stderr
    done, words = convert(paths[0], "twice.mindir")
    assert "widget_ascend.mindir: is converted already" in done.stderr
    assert words == []
    assert [path.read_bytes() for path in paths] == before
    (convert.here / "own.json").write_text(convert.model.with_suffix(".json").read_text())
    done, words = convert(convert.model, "own.mindir")
    assert "own.json describes another model; choose another name" in done.stderr
    assert words == []
