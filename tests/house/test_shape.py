"""Files and functions keep to a size that can be read at one sitting, and say what they are for."""

import ast
import io
import tokenize

from tests.house.source import Source, sources

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 70
UNFINISHED = ("TO" + "DO", "FIX" + "ME", "X" * 3)


def test_no_file_is_longer_than_anyone_wants_to_read() -> None:
    too_long = [
        f"{source.name}: {lines} lines"
        for source in sources()
        if (lines := len(source.text.splitlines())) > MAX_FILE_LINES
    ]
    assert too_long == []


def test_functions_fit_a_screen() -> None:
    too_long = [
        f"{source.at(node)} {node.name}: {lines} lines"
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert too_long == []


def test_every_file_opens_with_one_line_of_duty() -> None:
    silent = [source.name for source in sources() if source.text.strip() and not has_duty_line(source)]
    assert silent == []


def has_duty_line(source: Source) -> bool:
    """The docstring's first line stands alone; rules that the file obeys may follow after a blank one."""
    duty, *rest = (ast.get_docstring(source.tree) or "").split("\n")
    return bool(duty) and (not rest or not rest[0])


def test_no_comment_puts_work_off() -> None:
    put_off = [
        f"{source.name}:{token.start[0]}: {token.string}"
        for source in sources()
        for token in tokenize.generate_tokens(io.StringIO(source.text).readline)
        if token.type == tokenize.COMMENT and any(word in token.string for word in UNFINISHED)
    ]
    assert put_off == [], "finish it, or write an issue"
