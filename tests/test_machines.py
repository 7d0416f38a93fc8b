"""Machines: which Python is taken, which machines are refused, quotas, poor homes, trees that were moved."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from src import device as src_device
from src.sweep import __main__ as sweep
from src.sweep import worker
from src.utils import InputError, check_platform, core_count, cpu_quota, free_memory
from tests.conftest import ROOT, USER_ENVIRONMENT, missing, run_python
from tests.vendor_package import make_package

# --- which Python --------------------------------------------------------------------------------------------------

TOOLS = ("bash", "cat", "chmod", "cmp", "cp", "dirname", "mkdir", "realpath", "rm", "uname", "sed")
# Says that it is another version, and notes what it is asked to make and to install.
STAND_IN = """#!/bin/bash
case $1 in
  -c) exec {real} -c "import platform, sys; sys.version_info = tuple(map(int, '{version}'.split('.')))
platform.python_version = lambda: '{version}'
{lacks}
$2" ;;
  -V) echo "Python {version}" ;;
  -m)
    echo "{name} $2 ${{@: -1}}" >>"$CALLS"
    if [[ $2 == venv ]]; then
      mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo "VIRTUAL_ENV='$3'" >"$3/bin/activate"
    fi ;;
esac
"""
UV = """#!/bin/bash
echo "uv $*" >>"$CALLS"
[[ -z ${UV_FAILS:-} ]] || exit 2
venv=${@: -1}
mkdir -p "$venv/bin" && cp "$UV_PYTHON_HERE" "$venv/bin/python" && echo "VIRTUAL_ENV='$venv'" >"$venv/bin/activate"
"""


class Machine:
    """A copy of the scripts, and a PATH with nothing but what they need and the Pythons of this machine."""

    def __init__(self, folder):
        self.root, self.tools, self.calls = folder / "check out", folder / "tools", folder / "calls"
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        (self.root / "src").mkdir()
        shutil.copy(ROOT / "src/utils.py", self.root / "src")
        for name in ("requirements.txt", "requirements-dev.txt"):
            (self.root / name).write_text("one==1\n")
        self.tools.mkdir()
        for tool in TOOLS:
            (self.tools / tool).symlink_to(shutil.which(tool))

    @property
    def venv(self):
        return self.root / ".venv"

    def add(self, name, version, lacks="", folder=None):
        lacks = f"sys.modules['{lacks}'] = None" if lacks else ""
        text = STAND_IN.format(real=sys.executable, version=version, name=name, lacks=lacks)
        self.add_program(name if folder is None else "python3", text, folder)

    def add_program(self, name, text, folder=None):
        path = (folder or self.tools) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def run(self, *words, **environment):
        """Return how a script ended, and the calls of Pythons and uv: which one, and what for."""
        self.calls.write_text("")
        environment = {"PATH": str(self.tools), "CALLS": str(self.calls)} | environment
        script, *arguments = words or ("run_tests.sh",)
        done = subprocess.run(
            ["/bin/bash", self.root / "scripts" / script, *arguments],
            env=environment, capture_output=True, text=True, check=False, cwd=self.tools.parent,
        )  # fmt: skip
        return done, self.calls.read_text().splitlines()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("pythons", "environment", "taken"),
    [
        ({"python3": "3.11.2"}, {}, "python3"),
        ({"python3": "3.12.3", "python3.11": "3.11.2"}, {}, "python3"),
        ({"python3": "3.13.0", "python3.12": "3.12.1"}, {}, "python3.12"),
        ({"python3": "3.10.12", "python3.11": "3.11.2"}, {}, "python3.11"),
        ({"python3": "3.13.0", "python3.11": "3.11.2", "python3.12": "3.12.1"}, {}, "python3.12"),
        ({"python3.11": "3.11.2"}, {}, "python3.11"),
        ({"python3": "3.12.1", "mine": "3.11.2"}, {"STPM_BASE_PYTHON": "mine"}, "mine"),
        ({"python3": "3.12.1", "mine": "3.13.0"}, {"STPM_BASE_PYTHON": "mine"}, "python3"),
    ],
)
def test_choice(machine, pythons, environment, taken):
    """The first that the packages are made for; one that was named and is not taken is told of."""
    for name, version in pythons.items():
        machine.add(name, version)
    done, calls = machine.run(**environment)
    assert done.returncode == 0, done.stderr
    assert calls[0] == f"{taken} venv {machine.venv}"
    assert f"making {machine.venv} with {taken} (Python {pythons[taken]})" in done.stdout
    unfit = [name for name in environment.values() if name != taken]
    assert [line for line in done.stderr.splitlines() if "STPM_BASE_PYTHON" in line] == [
        f"warning: STPM_BASE_PYTHON {name}: is Python {pythons[name]}; expected Python 3.11 or 3.12, "
        "looking for another one"
        for name in unfit
    ]  # fmt: skip


def test_without_venv(machine):
    """Debian's python3 cannot make environments before python3-venv is installed; another one can."""
    machine.add("python3", "3.11.2", lacks="ensurepip")
    done, calls = machine.run()
    assert done.returncode == 1
    assert "python3: cannot make environments (Debian and Ubuntu: apt install python3-venv)" in done.stderr
    assert calls == []
    machine.add("python3.12", "3.12.1")
    assert machine.run()[1][0] == f"python3.12 venv {machine.venv}"


def test_pyenv(machine, tmp_path):
    """It keeps the versions that are not in use out of PATH."""
    machine.add("python3", "3.13.0")
    machine.add("pyenv's", "3.12.1", folder=tmp_path / "pyenv/versions/3.12.1/bin")
    assert machine.run(PYENV_ROOT=str(tmp_path / "pyenv"))[1][0] == f"pyenv's venv {machine.venv}"


def test_uv(machine, tmp_path):
    """Where no Python fits, uv makes the environment, with pip; where it cannot or is not there, one line says so."""
    machine.add("python3", "3.13.0")
    done, calls = machine.run()
    assert (done.returncode, calls) == (1, [])
    assert "python3: is Python 3.13.0" in done.stderr
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: no Python 3.11 or 3.12 ")
    for way_out in ("Debian 12", "Ubuntu 24.04", "apt install python3-venv", "uv", "STPM_BASE_PYTHON"):
        assert way_out in error
    machine.add("uv's", "3.12.9", folder=tmp_path / "uv")
    machine.add_program("uv", UV)
    there = {"UV_PYTHON_HERE": str(tmp_path / "uv/python3")}
    done, calls = machine.run(UV_FAILS="1", **there)
    assert done.returncode == 1
    assert done.stderr.endswith(f"error: {machine.venv}: uv cannot make it\n")
    done, calls = machine.run(**there)
    assert done.returncode == 0, done.stderr
    assert calls[0] == f"uv venv --quiet --seed --python >=3.11,<3.13 {machine.venv}"
    assert [call.split()[:2] for call in calls[1:]] == [["uv's", "pip"], ["uv's", "pytest"]]


def test_all_pythons(machine):
    """The suite runs on each version once, those that fail do not hide the others, and the status tells."""
    for name, version in {"python3": "3.11.2", "python3.11": "3.11.9", "python3.12": "3.12.1"}.items():
        machine.add(name, version)
    done, calls = machine.run("run_tests.sh", "--all-pythons", "-k", "x")
    assert done.returncode == 0, done.stderr
    made = [call.split(" ", 2)[2] for call in calls if call.split()[1] == "venv"]
    assert made == [str(machine.venv), str(machine.root / ".cache/python3.12")]
    assert [call for call in calls if call.split()[1] == "pytest"] == ["python3 pytest x", "python3.12 pytest x"]
    (machine.venv / "bin/python").write_text(
        (machine.tools / "python3").read_text().replace("  -m)", "  -m) [[ $2 != pytest ]] || exit 3;")
    )
    done, calls = machine.run("run_tests.sh", "--all-pythons")
    assert done.returncode == 3
    assert [call for call in calls if call.split()[1] == "pytest"] == ["python3.12 pytest --dist=loadfile"]


def test_real_interpreter(machine):
    """The one that runs these tests is fit."""
    machine.add_program("python3", f'#!/bin/bash\n[[ $1 == -m ]] || exec {sys.executable} "$@"\nexit 7\n')
    done, _ = machine.run()
    assert f"making {machine.venv} with python3 (Python {platform.python_version()})" in done.stdout


# --- trees that were moved -----------------------------------------------------------------------------------------


def test_moved_environment(machine):
    """It is made again by the scripts that make it; the others, which can use it, say where its activate leads."""
    machine.add("python3", "3.11.2")
    machine.run()
    assert [call.split()[1] for call in machine.run()[1]] == ["pytest"]
    before = machine.root
    machine.root = before.with_name("moved")
    shutil.copytree(before, machine.root, symlinks=True)
    done, _ = machine.run("run_predict.sh", machine.root, machine.root / "requirements.txt")
    assert done.returncode == 0
    assert f"warning: {machine.venv} was made as {before}/.venv, where its bin/activate leads" in done.stderr
    done, calls = machine.run()
    assert f"{machine.venv}: was made as {before}/.venv; making it again" in done.stdout
    assert [call.split()[1] for call in calls] == ["venv", "pip", "pytest"]
    assert (before / ".venv/bin/python").exists()

    (machine.venv / "bin/python").unlink()  # as where the machine it was made on had another Python
    done, _ = machine.run("run_predict.sh", machine.root, machine.root / "requirements.txt")
    assert f"error: {machine.venv}/bin/python: is missing or leads nowhere" in done.stderr
    assert [call.split()[1] for call in machine.run()[1]] == ["venv", "pip", "pytest"]


def test_foreign_environment(machine):
    """What these scripts did not make they do not remove."""
    machine.add("python3", "3.11.2")
    machine.add("old", "3.9.1", folder=machine.venv / "bin")
    (machine.venv / "bin/python3").rename(machine.venv / "bin/python")
    done, calls = machine.run()
    assert (done.returncode, calls) == (1, [])
    assert f"error: {machine.venv}: is Python 3.9.1, and it was not made by this script; remove it" in done.stderr
    assert (machine.venv / "bin/python").exists()
    other = machine.root.parent / "elsewhere"  # as where the project's folder cannot be written to
    assert machine.run(STPM_VENV=str(other))[1][0] == f"python3 venv {other}"


def test_moved_build(tmp_path):
    """A tree that was copied after its program was built builds it again, though CMake's notes name another folder."""
    if not shutil.which("cmake") or not shutil.which("c++"):
        missing("no cmake or no C++ compiler")
    make_package(tmp_path / "package")
    root = tmp_path / "one"
    for name in ("scripts/common.sh", "scripts/mindspore_lite.sh", "ascend_310_infer/build.sh"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    (root / "ascend_310_infer/CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.14)\nproject(small NONE)\n"
        "file(WRITE ${CMAKE_BINARY_DIR}/stpm_infer ${CMAKE_SOURCE_DIR})\n"
        "file(CHMOD ${CMAKE_BINARY_DIR}/stpm_infer PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)\n"
    )

    def build(root):
        environment = USER_ENVIRONMENT | {"MS_LITE_HOME": str(tmp_path / "package"), "STPM_PYTHON": sys.executable}
        command = ["bash", root / "ascend_310_infer/build.sh"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return "up to date" in done.stdout, (root / "ascend_310_infer/build/stpm_infer").read_text()

    assert build(root) == (False, f"{root}/ascend_310_infer")
    assert build(root)[0]
    shutil.copytree(root, tmp_path / "two")
    assert build(tmp_path / "two") == (False, f"{tmp_path}/two/ascend_310_infer")
    assert build(root)[0]


def test_python_without_packages(machine):
    """Before an environment is made, the scripts say so, and not Python, by a line of the program."""
    script = ("run_310_infer.sh", "a.mindir", ".", "y", "0", "widget")
    for version, lacks in (("3.8.10", ""), ("3.11.2", "PIL"), ("3.12.1", "numpy")):
        machine.add("python3", version, lacks=lacks)
        done, _ = machine.run(*script)
        assert done.returncode == 1
        assert done.stderr == (
            f"error: there is no {machine.venv}, and python3 is no Python 3.11 or 3.12 with the packages of "
            "requirements.txt; run_demo.sh makes the one, STPM_PYTHON names another Python\n"
        )
    machine.add("python3", "3.11.2")
    assert "MINDIR_PATH a.mindir: no such file" in machine.run(*script)[0].stderr


def test_build_without_rights(machine):
    """Where a program has yet to be built, but not there, that is said at once."""
    build = machine.root / "ascend_310_infer/build.sh"
    build.parent.mkdir()
    build.write_text(
        (ROOT / "ascend_310_infer/build.sh").read_text().replace("[[ -w $1 ]]", "false")
    )  # root may always
    machine.add("python3", "3.11.2")
    done, calls = machine.run("../ascend_310_infer/build.sh")
    assert (done.returncode, calls) == (1, [])
    assert done.stderr == (
        f"error: {machine.root}: cannot be written to, and the program has yet to be built: "
        f"run {build} as a user who can\n"
    )


# --- which machines ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "processor", "is_fit"),
    [
        ("Linux", "x86_64", True),
        ("Linux", "aarch64", True),
        ("Linux", "riscv64", False),
        ("Linux", "armv7l", False),
        ("Darwin", "arm64", False),
        ("Darwin", "x86_64", False),
        ("Windows", "AMD64", False),
    ],
)
def test_platforms(monkeypatch, system, processor, is_fit):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: processor)
    if is_fit:
        check_platform()
    else:
        with pytest.raises(InputError, match=f"this is {system} on {processor}: STPM needs Linux on x86_64 or aarch64"):
            check_platform()


def test_programs_elsewhere(tmp_path):
    """One line on stderr, where MindSpore is installed or not, and where Python has no fcntl: as on Windows."""
    here = {
        "train.py": "--data_url d --category c --pre_ckpt_path random",
        "test.py": "--data_url d --ckpt_path c --category c",
        "export.py": "--ckpt_file c --category c",
        "preprocess.py": "--data_dir d --category c --img_dir i",
        "postprocess.py": "--data_dir d --category c --result_dir r --label_dir l",
        "src.predict": "--image_path i --ckpt_path c",
        "src.calibrate": "--image_path d --category c --ckpt_path c",
        "src.sweep": "--data_url d --pre_ckpt_path random --device_num 1",
        "src.dataset": "--check d",
        "src.pth2ckpt": "--pth_path p --ckpt_path c",
        "src.demo_data": "--out_dir o",
    }
    code = f"""if True:
        import platform, runpy, sys
        sys.modules.update(dict.fromkeys(("fcntl", "mindspore", "termios", "resource", "pwd")))
        platform.system, platform.machine = lambda: "Windows", lambda: "AMD64"
        for name, flags in {here!r}.items():
            for module in [name for name in sys.modules if name.partition(".")[0] == "src"]:
                del sys.modules[module]
            sys.argv = [name, *flags.split()]
            try:
                if name.endswith(".py"):
                    runpy.run_path({str(ROOT)!r} + "/" + name, run_name="__main__")
                else:
                    runpy.run_module(name, run_name="__main__", alter_sys=True)
            except SystemExit as stop:
                assert stop.code == 1, (name, stop.code)
    """
    done = run_python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(here), done.stderr
    assert {line[:40] for line in lines} == {"error: this is Windows on AMD64: STPM ne"}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["run_demo.sh", "run_tests.sh", "run_predict.sh", "../ascend_310_infer/build.sh"])
def test_scripts_elsewhere(machine, name):
    """Before pip, which would install MindSpore's aarch64 package."""
    (machine.root / "ascend_310_infer").mkdir()
    shutil.copy(ROOT / "ascend_310_infer/build.sh", machine.root / "ascend_310_infer")
    machine.add("python3", "3.11.2")
    (machine.tools / "uname").unlink()
    machine.add_program("uname", "#!/bin/bash\n[[ $1 != -sm ]] || echo Darwin arm64\n")
    done, calls = machine.run(name)
    assert (done.returncode, calls) == (1, [])
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: this is Darwin arm64: STPM needs Linux on x86_64 or aarch64")


# --- a container's quota -------------------------------------------------------------------------------------------


def groups(folder, files, own):
    """A file tree that stands in for /sys/fs/cgroup, and for /proc/self/cgroup."""
    for name, text in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    (folder / "own").write_text(own)
    return folder / "cgroup", folder / "own"


V1, V1_NAMED, V2 = "3:cpu:/a/b\n1:memory:/\n", "4:cpu,cpuacct:/a/b\n0::/\n", "0::/a/b\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        (V2, {"a/b/cpu.max": "200000 100000\n"}, 2),
        (V2, {"a/b/cpu.max": "150000 100000\n"}, 2),  # rounded up
        (V2, {"a/b/cpu.max": "1000 100000\n"}, 1),
        (V2, {"a/b/cpu.max": "max 100000\n"}, None),
        (V2, {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        (V2, {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "100000 100000\n"}, 1),  # the ancestor's
        (V2, {"cpu.max": "250000 100000\n"}, 3),  # in a container, which sees the end of its path only
        ("0::/\n", {"cpu.max": "50000 25000\n"}, 2),
        ("0::/../x\n", {"cpu.max": "50000 25000\n"}, 2),
        (V2, {"unified/a/b/cpu.max": "200000 100000\n"}, 2),  # beside version 1
        (V2, {"c/cpu.max": "100000 100000\n"}, None),  # another group's
        (V1, {"cpu/a/b/cpu.cfs_quota_us": "200000\n", "cpu/a/b/cpu.cfs_period_us": "100000\n"}, 2),
        (V1, {"cpu/a/b/cpu.cfs_quota_us": "-1\n", "cpu/a/b/cpu.cfs_period_us": "100000\n"}, None),
        (
            V1,
            {
                "cpu/a/b/cpu.cfs_quota_us": "200000\n",
                "cpu/a/b/cpu.cfs_period_us": "50000\n",
                "cpu/cpu.cfs_quota_us": "300000\n",
                "cpu/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (V1_NAMED, {"cpu,cpuacct/a/cpu.cfs_quota_us": "70000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "50000\n"}, 2),
        (V1_NAMED, {"cpu/cpu.cfs_quota_us": "70000\n", "cpu/cpu.cfs_period_us": "50000\n"}, 2),
        ("5:cpuset:/a\n", {"cpuset/a/cpu.cfs_quota_us": "1\n", "cpuset/a/cpu.cfs_period_us": "1\n"}, None),
        (V1, {"cpu/a/b/cpu.cfs_quota_us": "200000\n"}, None),
        (V2, {"a/b/cpu.max": ""}, None),
        (V2, {"a/b/cpu.max": "0 100000\n"}, None),
        (V2, {"a/b/cpu.max": "100000 0\n"}, None),
        (V2, {"a/b/cpu.max": "one two\n"}, None),
        (V2, {"a/b/cpu.max": b"\xff\xfe 1"}, None),
        (V2, {"a/b/cpu.max": "9" * 5000 + " 1"}, None),
        (V2, {"a/b/cpu.max/folder": "x"}, None),
        ("", {"cpu.max": "1 1"}, None),
        ("nonsense\n::\n:::\n", {}, None),
    ],
)
def test_quota(tmp_path, own, files, expected):
    assert cpu_quota(*groups(tmp_path, files, own)) == expected


def test_no_groups(tmp_path):
    assert cpu_quota(tmp_path / "none", tmp_path / "none") is None


MEMORY = "MemTotal:       2000 kB\nMemFree:         100 kB\nMemAvailable:   1000 kB\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {}, 1000 * 1024),
        ("0::/a\n", {"a/memory.max": "max", "a/memory.current": "5"}, 1000 * 1024),
        ("0::/a\n", {"a/memory.max": "900", "a/memory.current": "500"}, 400),
        ("0::/a/b\n", {"a/memory.max": "900", "a/memory.current": "500", "a/b/memory.max": "850",
                       "a/b/memory.current": "400"}, 400),
        ("0::/a\n", {"a/memory.max": "900", "a/memory.current": "500",
                     "a/memory.stat": "anon 3\ninactive_file 70\n"}, 470),
        ("0::/a\n", {"a/memory.max": "900", "a/memory.current": "901"}, 0),
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": "900", "memory/a/memory.usage_in_bytes": "600",
                           "memory/a/memory.stat": "inactive_file 7\ntotal_inactive_file 100\n"}, 400),
        ("4:cpu:/a\n", {"memory/a/memory.limit_in_bytes": "900",
                        "memory/a/memory.usage_in_bytes": "600"}, 1000 * 1024),
    ],
)  # fmt: skip
def test_free_memory(tmp_path, own, files, expected):
    """The machine's, or what a group leaves of it; pages of files that can be dropped are free."""
    (tmp_path / "meminfo").write_text(MEMORY)
    assert free_memory(*groups(tmp_path, files, own), tmp_path / "meminfo") == expected


def test_unknown_memory(tmp_path):
    assert free_memory(tmp_path, tmp_path / "none", tmp_path / "none") is None


@pytest.fixture
def held(tmp_path, monkeypatch):
    """Hold this process to a quota, and to an affinity of as many cores as asked for."""

    def hold(quota, *, cores=8):
        tree = groups(tmp_path, {"cpu.max": f"{int(quota * 100000)} 100000"}, "0::/\n")
        monkeypatch.setattr(cpu_quota, "__defaults__", tree)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
        core_count.cache_clear()

    yield hold
    monkeypatch.undo()
    core_count.cache_clear()


@pytest.mark.parametrize(("quota", "cores", "expected"), [(2.5, 8, 3), (0.2, 8, 1), (16, 4, 4), (4, 4, 4)])
def test_core_count(held, quota, cores, expected):
    """The smaller of quota, rounded up, and affinity."""
    held(quota, cores=cores)
    assert core_count() == expected


def test_quota_is_handed_on(held, monkeypatch, device):
    """To OpenMP, to MindSpore, to ONNX Runtime and to Ray."""
    import mindspore as ms

    held(2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    src_device.prepare_environment()
    assert os.environ["OMP_NUM_THREADS"] == "2"
    told = {}
    monkeypatch.setattr(ms, "get_context", lambda _: 8)
    monkeypatch.setattr(ms, "set_context", lambda **values: told.update(values))
    src_device.set_up_device("CPU")
    assert told["runtime_num_threads"] == 2

    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "init", lambda *_, **values: told.update(values))
    monkeypatch.setattr(ray, "cluster_resources", dict)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    sweep.start_ray(1)
    assert told["num_cpus"] == 2

    onnxruntime = pytest.importorskip("onnxruntime")
    from src.model import model_file

    def session(_path, options, **_):
        told["intra_op"] = options.intra_op_num_threads
        raise RuntimeError("enough")

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(InputError, match="enough"):
        model_file._onnx_function(Path("model.onnx"))
    assert told["intra_op"] == 2


def test_claims_of_a_quota(held, monkeypatch, tmp_path):
    """Who may use the whole quota is tied to no cores; who shares it gets cores of his own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    held(2)
    with worker.claim_cores(2) as everything:
        assert everything == set(range(8))
    with worker.claim_cores(1) as one, worker.claim_cores(1) as other:
        assert (one, other) == ({0}, {1})


@pytest.mark.skipif(not os.access("/sys/fs/cgroup/cpu/cgroup.procs", os.W_OK), reason="no control groups to make")
def test_real_group():
    """A process in a group within one that has a quota, as the kernel shows it."""
    outer = Path(f"/sys/fs/cgroup/cpu/stpm-test-{os.getpid()}")
    inner = outer / "inner"
    try:
        inner.mkdir(parents=True)
        (outer / "cpu.cfs_quota_us").write_text("50000")
    except OSError:
        pytest.skip("no control groups can be made here")
    try:
        code = "import src.utils as u; print(u.cpu_quota(), u.core_count())"
        join = f'echo $$ > {inner}/cgroup.procs; exec "$0" -c "$1"'
        done = subprocess.run(["bash", "-c", join, sys.executable, code], cwd=ROOT, capture_output=True, text=True)
        assert done.stdout == "1 1\n", done.stderr
    finally:
        inner.rmdir()
        outer.rmdir()


# --- poor homes ----------------------------------------------------------------------------------------------------


def test_no_temporary_folder(monkeypatch):
    """MindSpore's import would end in pages of a dump."""

    def full():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", full)
    with pytest.raises(InputError, match=r"No usable temporary directory .* name another folder in TMPDIR"):
        src_device.prepare_environment()
    with worker.claim_cores(1) as cores:
        assert cores == os.sched_getaffinity(0)


def test_script_without_locks(machine):
    """On a file system that has none, the work goes on, and that is said."""
    machine.add("python3", "3.11.2")
    machine.add_program("flock", "#!/bin/bash\nexit 71\n")
    (machine.tools / "tee").symlink_to(shutil.which("tee"))
    data = machine.root / "data/widget"
    data.mkdir(parents=True)
    arguments = ("run_standalone_train.sh", data.parent, "random", "widget")
    done, _ = machine.run(*arguments, STPM_FOREGROUND="1")
    assert done.returncode == 0, done.stderr
    log = machine.tools.parent / "widget/train.log"
    assert done.stderr == f"warning: {log}: cannot be locked: nothing else may write there\n"


IN_A_POOR_HOME = """
set -e
mount -t tmpfs -o size=64m tmpfs /dev/shm
mount --bind "$ROOT" "$ROOT" && mount -o remount,bind,ro "$ROOT"
cd "$ROOT"
! touch written 2>/dev/null
exec env -i PATH=/usr/bin:/bin LANG=C TMPDIR="$OUT" RAY_TMPDIR="$OUT" "$PYTHON" -c "$CODE" "$OUT"
"""
POOR_CODE = """
import pathlib, sys
from src.files import write_json
from src.sweep.__main__ import start_ray
write_json(pathlib.Path(sys.argv[1]) / 'd\u00e4ta', {'cores': start_ray(1)['CPU']})
"""


def test_poor_home(tmp_path_factory):
    """Ray, and a file, without HOME, in the locale C, with little shared memory, and the project read-only."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces can be made here")
    with tempfile.TemporaryDirectory(prefix="r") as out:  # short: the names of Ray's sockets are limited
        environment = {"ROOT": str(ROOT), "OUT": out, "CODE": POOR_CODE, "PYTHON": sys.executable}
        done = subprocess.run(
            ["unshare", "-m", "bash", "-c", IN_A_POOR_HOME],
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert (Path(out) / "däta").exists()
    assert not (ROOT / "written").exists()
