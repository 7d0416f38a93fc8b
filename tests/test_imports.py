"""The import rules of docs/architecture.md, read off the code's own imports, those inside functions included."""

import ast
import tomllib

import pytest

from tests.conftest import ROOT, run_python

SRC = ROOT / "src"
ENTRY_POINTS = ("train", "test", "export", "preprocess", "postprocess")
# A part of src imports parts of lower rows only. A part is a package, or a module that is in none.
ROWS = (
    ("utils",),
    ("cpu", "files", "resnet", "loss", "torch_file"),
    ("checkpoint", "data", "device", "download"),
    ("stpm", "portable", "evaluation", "config", "callbacks"),
    ("dataset", "backend"),
    ("model", "report"),
    ("detector",),
    ("training", "exchange", "sweep", "line", "demo_web"),
    ("predict", "calibrate", "monitor", "demo_data", "modelarts", "pth2ckpt"),
)
LEVEL = {part: level for level, row in enumerate(ROWS) for part in row}
WITHOUT_MINDSPORE = ("cpu", "data", "evaluation", "exchange", "line", "report", "sweep", "utils", "files", "config",
                     "torch_file", "download")  # fmt: skip
# Whoever installs the package need not have these; each is known to one module, or to none.
ONLY_IN = {"torch": None, "moxing": "modelarts", "ray": "sweep.__main__", "onnxruntime": "model.model_file"}
MODULES = {".".join(path.relative_to(SRC).with_suffix("").parts): path for path in sorted(SRC.rglob("*.py"))}
PARTS = {name: name.partition(".")[0] for name in MODULES if name != "__init__"}


class Imports(ast.NodeVisitor):
    """Absolute names of what a module imports when it runs: those under TYPE_CHECKING do not count."""

    def __init__(self, module, path):
        self.package = ["src", *module.split(".")[:-1]]
        self.found = set()
        self.visit(ast.parse(path.read_text()))

    def visit_If(self, node):
        for child in node.orelse if ast.unparse(node.test) == "TYPE_CHECKING" else [*node.body, *node.orelse]:
            self.visit(child)

    def visit_Import(self, node):
        self.found |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node):
        base = ".".join([*self.package[: len(self.package) + 1 - node.level], *([node.module] if node.module else [])])
        base = base if node.level else node.module
        self.found |= {f"{base}.{alias.name}" for alias in node.names}


def imports(module):
    return Imports(module, MODULES[module]).found


def test_every_part_has_a_row():
    assert set(PARTS.values()) == LEVEL.keys()


def test_every_package_is_installed():
    """``pip install .`` takes what is listed, and no more."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = [path.parent.relative_to(SRC).parts for path in SRC.rglob("__init__.py")]
    assert sorted(listed) == sorted(".".join(("stpm", *parts)) for parts in folders)


@pytest.mark.parametrize("module", PARTS)
def test_downwards(module):
    """Parts are imported from lower rows, and relatively: the same tree is installed under another name."""
    for name in imports(module):
        top, _, rest = name.partition(".")
        assert top not in {*ENTRY_POINTS, "tests", "benchmarks"}, name
        if top == "src" and (part := rest.partition(".")[0]) in LEVEL:  # else what src itself defines
            assert part == PARTS[module] or LEVEL[part] < LEVEL[PARTS[module]], name
    tree = ast.parse(MODULES[module].read_text())
    own = [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("src")
    ]
    assert not own


@pytest.mark.parametrize("module", PARTS)
def test_packages(module):
    """MindSpore is not imported where arrays and files will do, and what is optional in one place only."""
    names = {name.partition(".")[0] for name in imports(module)}
    assert "mindspore" not in names or PARTS[module] not in WITHOUT_MINDSPORE
    for package, only in ONLY_IN.items():
        assert package not in names or module == only


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_entry_points(name):
    found = Imports(name, ROOT / f"{name}.py").found
    assert not {one.partition(".")[0] for one in found} & {*ENTRY_POINTS, "mindspore"}


def test_cpu_alone():
    """The package of the fast form can be used without the rest: it needs nothing but numpy."""
    code = "import sys, src.cpu.trunk; sys.exit(bool({'mindspore', 'PIL', 'scipy', 'sklearn'} & sys.modules.keys()))"
    assert run_python("-c", code).returncode == 0


def test_bad_usage():
    """It is told before the slow imports."""
    slow = "{'mindspore', 'torch', 'onnxruntime'}"
    code = f"import sys, {', '.join(ENTRY_POINTS)}; sys.exit(bool({slow} & sys.modules.keys()))"
    assert run_python("-c", code).returncode == 0


def test_sweep_worker():
    """Ray imports it in every worker: the standard library only."""
    assert run_python("-c", "import sys, src.sweep.worker; sys.exit('numpy' in sys.modules)").returncode == 0
