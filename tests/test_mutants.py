"""The list of planted defects: that each can still be planted, and where."""

import ast
from collections import Counter

import pytest

from tests.conftest import ROOT
from tests.mutants import __main__ as mutants
from tests.mutants.__main__ import read_lists

MUTANTS = read_lists()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: f"{one.file}: {one.name}")
def test_can_be_planted(mutant, tmp_path):
    """Its text stands once in its file, what comes out is a program, and the tests that should notice exist."""
    path = tmp_path / mutant.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text((ROOT / mutant.file).read_text())
    before = mutant.plant(tmp_path)
    assert path.read_text() != before
    if path.suffix == ".py":
        assert ast.dump(ast.parse(path.read_text())) != ast.dump(ast.parse(before))
    assert mutant.tests
    for test in mutant.tests:
        file, *names = test.split("::")
        text = (ROOT / file).read_text()
        for name in names:
            assert f"def {name.partition('[')[0]}(" in text, test


def test_list():
    """At least 120, each with a name of its own in its file, in every module, script and C++ source; few survive."""
    assert len(MUTANTS) >= 120
    assert not [name for name, count in Counter((one.file, one.name) for one in MUTANTS).items() if count > 1]
    assert len([one for one in MUTANTS if one.survives]) <= 0.05 * len(MUTANTS)
    files = {one.file for one in MUTANTS}
    programs = [*ROOT.glob("*.py"), *ROOT.glob("src/**/*.py"), *ROOT.glob("scripts/*.sh")]
    programs += [*ROOT.glob("ascend_310_infer/src/*.cc"), ROOT / "ascend_310_infer/build.sh"]
    assert {str(path.relative_to(ROOT)) for path in programs if path.name != "__init__.py"} <= files


def test_none_chosen(capsys):
    """With no defect to plant, pytest would be given no test, and would run them all."""
    assert mutants.main(mutants.parse_args(["--only", "no such defect"])) == 2
    assert "--only no such defect: no defect has this in its name or file" in capsys.readouterr().err
