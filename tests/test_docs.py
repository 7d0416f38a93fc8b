"""What the documents promise: every flag, and links, commands, twins in the other language and tables that hold."""

import json
import os
import re
import tomllib
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

import export
import postprocess
import preprocess
import test as evaluation
import train
from docs.flags_page import PROGRAMS, explain, flags_of, flags_page, title_of
from src import calibrate, device, monitor, predict
from src.config import FLAGS, build_parser
from src.report import table
from src.sweep import __main__ as sweep
from src.utils import InputError
from tests.conftest import ROOT

MODULES = dict(
    zip(PROGRAMS, (train, evaluation, export, preprocess, postprocess, predict, calibrate, monitor, sweep), strict=True)
)
READMES = ("README.md", "README_CN.md")
SUBJECTS = (
    "flags", "data", "training", "verdict", "inference", "accuracy", "performance", "robustness", "architecture",
    "files", "ascend", "from_the_zoo", "line", "python", "small_defects",
)  # fmt: skip
ENGLISH = tuple(f"docs/{name}.md" for name in SUBJECTS)
CHINESE = tuple(f"docs/zh/{name}.md" for name in SUBJECTS)
PAGES = (*READMES, *ENGLISH, *CHINESE, "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/NOTES.md")


@cache
def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def prose(page):
    """A page without its blocks of code, which may hold what looks like a heading or a link."""
    return re.sub(r"^ *```.*?^ *```", "", read(page), flags=re.M | re.S)


@cache
def headings(page):
    """What a page's headings below its title say, and the anchors that GitHub gives them."""
    found = {}
    for heading in re.findall(r"^##+ (.+)$", prose(page), re.M):
        plain = re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading)
        found[plain] = re.sub(r"[^\w -]", "", plain.lower()).replace(" ", "-")
    return found


def links(page):
    """Where the links of a page lead: a path below the project's root, and an anchor or nothing."""
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(page)):
        path, _, anchor = unquote(target).partition("#")
        yield os.path.normpath(Path(page).parent / path) if path else page, anchor


def test_pages():
    """No page stands in docs that is not checked here, and each is there in both languages."""
    found = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert found == {*ENGLISH, *CHINESE}


@pytest.mark.parametrize("page", PAGES)
def test_links(page):
    """Links lead to files, and to headings, that exist."""
    for path, anchor in links(page):
        assert (ROOT / path).exists(), path
        if anchor:
            assert anchor in headings(path).values(), f"{path}#{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_commands(page):
    """Scripts, programs and tests that are named exist."""
    text = read(page)
    for name in re.findall(r"\b(?:scripts|tests|benchmarks|src)/[\w/]+\.(?:sh|py|json|toml)", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"python -m ((?:src|benchmarks)(?:\.\w+)*)", text):
        path = ROOT / name.replace(".", "/")
        if page != "CHANGELOG.md":  # which names those of before
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists() or name == "benchmarks", name
    for name in re.findall(r"python (\w[\w/]*\.py)", text):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", [*READMES, *ENGLISH, *CHINESE])
def test_contents(page):
    """A table of contents lists headings in their order: a README's all but its own, a page's at least the highest."""
    contents = re.findall(r"^ *- \[(.+)\]\(#(.+)\)$", prose(page), re.M)
    there = list(headings(page).items())
    if page in READMES:
        assert contents == there[1:]
        return
    assert contents == [heading for heading in there if heading in contents]
    assert not contents or set(re.findall(r"^## (.+)$", prose(page), re.M)) <= {text for text, _ in contents}


@pytest.mark.parametrize("pages", [READMES, *zip(ENGLISH, CHINESE, strict=True)])
def test_twins(pages):
    """A page begins with links to the README and to its twin in the other language."""
    for page, twin, readme in zip(pages, reversed(pages), READMES, strict=True):
        beginning = "\n".join(read(page).splitlines()[:5])
        found = {os.path.normpath(Path(page).parent / path) for path in re.findall(r"\]\(([^)#]+)\)", beginning)}
        assert {twin, *({readme} - {page})} <= found


@pytest.mark.parametrize("readme", READMES)
def test_readme(readme):
    """It can be read at one sitting, and leads to every page of its language."""
    assert len(read(readme).splitlines()) <= 310
    pages = ENGLISH if readme == "README.md" else CHINESE
    assert set(pages) <= {path for path, _ in links(readme)}


@pytest.mark.parametrize("page", PAGES)
def test_flags_exist(page):
    """Flags that are named are ones of the programs, or of another program that is named beside them."""
    others = {
        "mutants", "all-pythons", "only", "jobs", "readme", "results", "index", "pth_path", "max_images",
        "worker_num", "local_worker_num", "master_addr", "node_rank", "generate", "head", "port", "address",
        "images", "epochs", "rounds", "memory_max", "help", "version", "input_path", "result_path", "time_path",
        "device_type", "threads", "warmup", "flag", "layout", "copy", "good", "test_good", "defect", "runs", "held_out",
        "model", "watch", "stdin", "out", "overlay", "overlay_dir", "after", "after_dir", "journal", "poll_seconds",
        "allow-shlib-undefined", "now", "deadline_ms", "report_every", "decoders", "format",
        "precision", "selftest", "precision_mode", "install", "prefix", "build", "target", "test-dir",
        "scores", "mindir_version", "download", "mirror", "no-deps",
        "product", "work_folder", "settings", "borders", "figure",
    }  # fmt: skip
    of_the_vendor = {"fmk", "saveType", "optimize", "modelFile", "outputFile", "configFile", "soc_version"}
    of_the_zoo = {"dataset_path", "finetune", "run_eval", "start_eval_epoch", "onnx_path", "file_name", "pt_path"}
    of_the_zoo |= {"out_size"}
    for benchmark in ROOT.glob("benchmarks/*.py"):
        others |= set(re.findall(r'add_argument\(\s*"--(\w+)"', benchmark.read_text()))
    named = set(re.findall(r"(?<![\w-])--([a-z][A-Za-z0-9_-]*)", read(page)))
    assert named <= {*FLAGS, *others, *of_the_vendor, *of_the_zoo}


# --- flags ---


def test_flags_page():
    """The English page is what ``python -m docs.flags_page`` prints."""
    assert flags_page() == read("docs/flags.md"), "python -m docs.flags_page > docs/flags.md"


@pytest.mark.parametrize("program", PROGRAMS)
def test_flags_of(program, capsys):
    """Those that are read off a program's file are those that it takes."""
    with pytest.raises(SystemExit):
        MODULES[program].parse_args(["--help"])
    taken = set(re.findall(r"^  --(\w+)", capsys.readouterr().out, re.M)) - {"version"}
    own = (flags_of(program, picked_as=name) for name in ("FLAG_NAMES", "OWN_FLAGS", "TRAINING_FLAGS"))
    assert {name for names in own for name in names} == taken


def sections(page):
    """The tables of flags of a page by program: of each flag meaning, choices and default; and the text about it."""
    for program, title in {one: title_of(one) for one in PROGRAMS}.items():
        text = read(page).partition(f"\n## {title}\n")[2].partition("\n## ")[0]
        rows = {}
        for line in text.splitlines():
            if line.startswith("| `--"):
                name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
                assert name[3:-1] not in rows, f"{program}: {name} stands twice"
                rows[name[3:-1]] = cells
        yield program, rows, text


@pytest.mark.parametrize("page", ["docs/flags.md", "docs/zh/flags.md"])
def test_flags_are_complete(page):
    """Each program's section has a row for every flag that it takes; the sweep's names those that it hands on."""
    for program, rows, text in sections(page):
        assert set(rows) == {*flags_of(program), *flags_of(program, picked_as="OWN_FLAGS")}, program
        handed_on = set(flags_of(program, picked_as="TRAINING_FLAGS"))
        assert handed_on <= set(re.findall(r"`--(\w+)`", text)), program


@pytest.mark.parametrize("page", ["docs/flags.md", "docs/zh/flags.md"])
def test_flags_know_their_program(page):
    """What a program's section says of its flags names no flag that this program does not take."""
    for program, rows, _ in sections(page):
        named = {name for cells in rows.values() for name in re.findall(r"--(\w+)", " ".join(cells))}
        assert named <= {*rows, *flags_of(program, picked_as="TRAINING_FLAGS")}, program


@pytest.mark.parametrize("page", ["docs/flags.md", "docs/zh/flags.md"])
def test_choices(page):
    for program, rows, _ in sections(page):
        for name, (_, choices, _) in rows.items():
            found = tuple(re.findall(r"`([^`]+)`", choices))
            is_switch = FLAGS[name].get("default") is False
            assert found == FLAGS[name].get("choices", ()) or (is_switch and found == ("True", "False")), (
                program,
                name,
            )


@pytest.mark.parametrize("page", ["docs/flags.md", "docs/zh/flags.md"])
def test_defaults(page):
    """A declared default is told as such; of others, the numbers are those of the English page, which is generated."""
    for program, rows, _ in sections(page):
        for name, (_, _, told) in rows.items():
            declared = FLAGS[name].get("default")
            if declared is None:
                _, expected = explain(name, program)
                numbers = [re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])", text) for text in (told, expected)]
                assert numbers[0] == numbers[1], (program, name)
            else:
                first = told.replace("`", "").split(" ")[0].rstrip(";,\uff1b\uff0c")
                assert getattr(build_parser("", (name,)).parse_args([f"--{name}", first]), name) == declared, (
                    program,
                    name,
                )


NEEDED = {  # flags that a program cannot do without
    "train.py": ("data_url", "category", "pre_ckpt_path"),
    "test.py": ("data_url", "category", "ckpt_path"),
    "export.py": ("ckpt_file", "category"),
    "preprocess.py": ("data_dir", "img_dir", "category"),
    "postprocess.py": ("result_dir", "data_dir", "label_dir", "category"),
    "src/predict.py": ("image_path", "ckpt_path"),
    "src/calibrate.py": ("image_path", "ckpt_path"),
    "src/monitor.py": ("scores", "ckpt_path"),
    "src/sweep/__main__.py": ("data_url", "pre_ckpt_path", "device_num"),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_defaults_of(program):
    """Where a default depends on the program, the page tells what that program makes of it."""
    args = vars(MODULES[program].parse_args([word for name in NEEDED[program] for word in (f"--{name}", "1")]))
    for name in flags_of(program):
        if FLAGS[name].get("default") is None and name not in NEEDED[program] and args[name] is not None:
            _, told = explain(name, program)
            assert str(args[name]) == told or told == "--data_url", name


@pytest.mark.parametrize("page", ["docs/flags.md", "docs/zh/flags.md"])
def test_required_flags(page):
    """A flag that a program cannot do without is told as such."""
    for program, rows, _ in sections(page):
        required = {name for name, (_, _, told) in rows.items() if told.startswith(("required", "必需"))}
        assert required == set(NEEDED[program]), program


# --- tables ---


@pytest.mark.parametrize("page", ["docs/accuracy.md", "docs/zh/accuracy.md"])
def test_results(page, tmp_path):
    """The table of results is the one that the committed results give."""
    (tmp_path / "page.md").write_text(read(page), encoding="utf-8")
    table.update_readme(tmp_path / "page.md", json.loads(read("docs/results.json")))
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == read(page)


def test_no_marks(tmp_path):
    (tmp_path / "page.md").write_text("text")
    with pytest.raises(InputError, match="has no lines"):
        table.update_readme(tmp_path / "page.md", {})


MARKS = {
    "performance": ("training and evaluation", "inference, batch 1", "inference, batch 8"),
    "small_defects": ("small defects", "cost of a size"),
}


@pytest.mark.parametrize("page", [f"docs/{folder}{name}.md" for name in MARKS for folder in ("", "zh/")])
def test_marks(page):
    """The tables that benchmarks renew have their marks."""
    for name in MARKS[Path(page).stem]:
        assert f"<!-- {name}: begin -->" in read(page)
        assert f"<!-- {name}: end -->" in read(page)


def test_measured_numbers():
    """The READMEs' first table and that of the page on accuracy tell the same."""
    results = json.loads(read("docs/results.json"))
    for recipe, categories in (("published", results["categories"]), ("recommended", results["recommended"])):
        rows = (categories[name] for name in ("bottle", "capsule"))
        cells = (" / ".join(f"{row[metric]:.3f}" for metric in table.METRICS) for row in rows)
        expected = f" | {' | '.join(cells)} |"
        for readme in READMES:
            (line,) = (line for line in read(readme).splitlines() if re.match(rf"\| .*`--recipe {recipe}`", line))
            assert line.endswith(expected)


PINS = re.compile(r"([a-zA-Z][\w-]*)==(\d[\w.]*\w)")


@pytest.mark.parametrize("page", PAGES)
def test_pinned_versions(page):
    """Those that a page names are those of the requirements."""
    required = dict(pin for path in ROOT.glob("requirements*.txt") for pin in PINS.findall(path.read_text()))
    assert dict(PINS.findall(read(page))).items() <= required.items()


def test_no_pins_in_code():
    """Messages take versions from the requirements, and so does pip from whoever installs the package."""
    for path in (*ROOT.glob("*.py"), *ROOT.glob("src/**/*.py"), *ROOT.glob("scripts/*.sh")):
        assert not PINS.findall(path.read_text()), path
    settings = tomllib.loads(read("pyproject.toml"))["tool"]["setuptools"]["dynamic"]
    assert settings["optional-dependencies"] == {"optional": {"file": [device.OPTIONAL_PACKAGES.name]}}
    assert settings["dependencies"] == {"file": ["requirements.txt"]}
    assert device.OPTIONAL_PACKAGES.parent == ROOT


# --- the tree ---


@pytest.mark.parametrize("page", ["docs/architecture.md", "docs/zh/architecture.md"])
def test_tree(page):
    """It names every file of the product, and no others."""
    tree = re.sub("//.*", "", read(page).partition("```text\n")[2].partition("```")[0])
    named = {Path(name).name for name in re.findall(r"[\w/-]+\.(?:py|sh|h|cc|txt|json|md)\b", tree)}
    folders = ("src", "scripts", "ascend_310_infer/inc", "ascend_310_infer/src")
    product = [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    expected = {path.name for path in product if path.suffix in (".py", ".sh", ".h", ".cc", ".json")}
    assert expected - {"__init__.py"} <= named
    assert all(any(ROOT.rglob(name)) for name in named - expected)
