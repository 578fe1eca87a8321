"""Each dangerous thing has one place; what import-linter cannot see is looked for here."""

import ast
from collections.abc import Iterator

from tests.house.source import ROOT, Source, imported_modules, sources

# Module and attribute: what tells a program who called it, and so belongs to the command line alone.
SURROUNDINGS = {("os", "environ"), ("os", "environb"), ("os", "getenv"), ("sys", "argv")}
# composition.py is the library's own edge: `open()` without a root asks the environment, once. process.py tells others
# the program's name.
EDGES = ("prontodb/cli/", "prontodb/composition.py", "prontodb/storage/process.py")


def test_only_the_command_line_prints() -> None:
    printing = [
        source.at(node)
        for source in sources("prontodb/", but=("prontodb/cli/",))
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []


def test_only_the_command_line_reads_argv_and_the_environment() -> None:
    reading = [
        where
        for source in sources(
            "prontodb/", but=("prontodb/cli/", "prontodb/composition.py", "prontodb/storage/process.py")
        )
        for where in surroundings_read(source)
    ]
    assert reading == []


def surroundings_read(source: Source) -> list[str]:
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) in SURROUNDINGS:
                found.append(source.at(node))
        elif isinstance(node, ast.ImportFrom):
            found += [source.at(node) for alias in node.names if (node.module, alias.name) in SURROUNDINGS]
    return found


def test_nobody_opens_sqlite_through_the_standard_library() -> None:
    # Two SQLite libraries in one process do not see each other's locks. A test that needs the other one
    # starts another process with its program in a string, where this rule does not look.
    opening = [
        source.at(node)
        for source in sources("prontodb/", "stress/", "tests/")
        for node, module in imported_modules(source.tree)
        if module.split(".")[0] == "sqlite3"
    ]
    assert opening == []


def test_nobody_inside_imports_from_the_package_root() -> None:
    # The root imports everybody to be the public face; whoever imports it back closes a circle.
    circles = [
        f"{source.at(node)} imports {name}"
        for source in sources("prontodb/")
        for node, name in root_names_imported(source.tree)
    ]
    assert circles == []


def root_names_imported(tree: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names if alias.name == "prontodb")
        elif isinstance(node, ast.ImportFrom) and node.module == "prontodb":
            # Submodules are not names of the root; __version__ is there before anything is imported.
            names = [alias.name for alias in node.names]
            yield from ((node, name) for name in names if name != "__version__" and not is_module(name))


def is_module(name: str) -> bool:
    return (ROOT / "prontodb" / name).is_dir() or (ROOT / "prontodb" / f"{name}.py").is_file()
