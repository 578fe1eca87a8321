"""The harness ships beside the product under another name: it finds all of itself there, and uses the public face."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import prontodb
from tests.house.source import ROOT, Source, sources

STRESS = ROOT / "stress"
WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"][
    "wheel"
]
OURS = sources("stress/")


def test_the_wheel_has_it_under_its_own_name() -> None:
    assert WHEEL["force-include"] == {"stress": "prontodb_stress"}
    assert "stress" not in WHEEL["packages"]


def test_it_imports_itself_relatively() -> None:
    # Under the name it is installed by, `import stress` would be somebody else's, or nobody's.
    absolute = [
        f"{source.at(node)} imports {name}"
        for source in OURS
        for node, name in absolute_imports(source.tree)
        if name.partition(".")[0] in ("stress", "prontodb_stress", "tests", "benchmarks", "ops")
    ]
    assert absolute == []


def test_no_relative_import_leaves_it() -> None:
    leaving = [
        source.at(node)
        for source in OURS
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom) and node.level > depth(source)
    ]
    assert leaving == []


def depth(source: Source) -> int:
    """How many packages a file of it is in."""
    return len(Path(source.name).parts) - 1


def test_of_the_product_it_imports_the_public_face_alone() -> None:
    inner = [
        f"{source.at(node)} imports {name}"
        for source in OURS
        for node, name in absolute_imports(source.tree)
        if name.partition(".")[0] == "prontodb" and name not in PUBLIC
    ]
    assert inner == []


PUBLIC = {"prontodb", *(f"prontodb.{name}" for name in prontodb.__all__)}


def absolute_imports(tree: ast.Module) -> list[tuple[ast.stmt, str]]:
    """Each imported module, or name of one, in full."""
    found: list[tuple[ast.stmt, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found += [(node, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def test_each_file_that_is_no_module_lies_in_a_package() -> None:
    others = [path for path in STRESS.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert [path.relative_to(STRESS).as_posix() for path in others] == ["report/style.css"]
    assert all((folder / "__init__.py").is_file() for path in STRESS.rglob("*.py") for folder in [path.parent])


@pytest.mark.slow
def test_it_works_under_the_name_that_it_is_installed_by(tmp_path: Path) -> None:
    (tmp_path / "prontodb_stress").symlink_to(STRESS)
    program = (
        "import sys, prontodb_stress.command as c; assert 'stress' not in sys.modules; sys.exit(c.main(sys.argv[1:]))"
    )
    report = tmp_path / "report"
    run = ["run", "ttl", "--agents", "1", "--operations", "20", "--report", str(report), "--quiet"]
    # The checkout is left out of the path: only the product is found, as if both were installed.
    (tmp_path / "prontodb").symlink_to(ROOT / "prontodb")
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, *run],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (STRESS / "report" / "style.css").read_text() in (report / "report.html").read_text()


def test_what_the_tests_import_is_what_ships() -> None:
    found = importlib.util.find_spec("stress")
    assert found is not None
    assert found.origin == str(STRESS / "__init__.py")
