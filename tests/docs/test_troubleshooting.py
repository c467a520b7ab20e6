"""docs/troubleshooting.md has every error that a user can meet, and none that is gone."""

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple, get_args

import pytest

from api.errors import HTTP_CODES, VALIDATION_CODES
from engine import errors as engine_errors
from graph.admission import REASONS
from graph.errors import INTERNAL_ERROR
from graph.jobs.job import Status
from tests.docs.pages import ROOT, named, page, rows, sections

PAGE = page("troubleshooting.md")
OTHER = "other"
FROM_TABLES = {
    ("api/errors.py", "describe_validation_error"): {
        (str(s), c) for s, c in VALIDATION_CODES.values()
    },
    ("api/errors.py", "describe_http_error"): {
        *((str(status), code) for status, code in HTTP_CODES.items()),
        (OTHER, "http_error"),
    },
    ("graph/errors.py", "describe_error"): {("500", INTERNAL_ERROR)},
    ("graph/admission.py", "_build_refusal"): {("429", code) for code, _ in REASONS.values()},
    # A job that has finished has an answer.
    ("graph/jobs/jobs.py", "find_answer"): {
        ("409", f"job_{status}") for status in get_args(Status) if status != "finished"
    },
}
"""Where a code is no literal: what it may be."""


class Raised(NamedTuple):
    path: str
    function: str
    status: int | None
    code: str | None
    """None: not written there."""


def of_call(call: ast.Call) -> tuple[int | None, str | None] | None:
    """Return status and code of a call that makes an ApiError, by whatever name it is called."""
    name = ast.unparse(call.func)
    first, second, *_ = [*call.args, None, None]
    status = first.value if isinstance(first, ast.Constant) else None
    code = second.value if isinstance(second, ast.Constant) else None
    is_status = isinstance(status, int) and 400 <= status < 600
    if name == "ApiError" or (is_status and name != "HTTPException" and isinstance(code, str)):
        return (status if is_status else None), code
    return None


def raised(node: ast.AST, path: str, function: str = "") -> Iterator[Raised]:
    for child in ast.iter_child_nodes(node):
        inner = (
            child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
        )
        if isinstance(child, ast.Call) and (found := of_call(child)):
            yield Raised(path, inner, *found)
        yield from raised(child, path, inner)


def in_source() -> set[tuple[str, str]]:
    """Return every status and code that the source can answer with."""
    all_of_them = {
        one
        for folder in ("graph", "api")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for one in raised(ast.parse(path.read_text()), str(path.relative_to(ROOT)))
    }
    literal = {(str(one.status), one.code) for one in all_of_them if one.status and one.code}
    others = {(one.path, one.function) for one in all_of_them if not (one.status and one.code)}
    assert others == set(FROM_TABLES), "write the code as a literal, or say here what it may be"
    return literal.union(*FROM_TABLES.values())


def told() -> set[tuple[str, str]]:
    table = rows(sections(PAGE)["Error codes of the API"])
    return {(status, code) for codes, status, *_ in table for code in named(codes)}


def test_every_code_is_told_with_its_status():
    found = in_source()
    assert len(found) > 30
    assert told() == found


def test_every_code_has_a_cause():
    assert [row for row in rows(sections(PAGE)["Error codes of the API"]) if not row[2]] == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f():\n    raise ApiError(404, 'gone', message)", (404, "gone")),
        ("def f():\n    raise kind(503, 'lost', message) from error", (503, "lost")),
        ("def f():\n    return ApiError(status, code, message)", (None, None)),
        ("def f():\n    raise ApiError(409, f'job_{status}', message)", (409, None)),
    ],
)
def test_a_code_is_found(source: str, expected: tuple[int | None, str | None]):
    (found,) = raised(ast.parse(source), "x.py")
    assert found == ("x.py", "f", *expected)


def messages(error: str, source: str) -> Iterator[str]:
    """Yield how each message begins that such an error is raised with; `…` is what differs."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == error:
            parts = node.args[0].values if isinstance(node.args[0], ast.JoinedStr) else []
            text = "".join(p.value if isinstance(p, ast.Constant) else "…" for p in parts)
            yield re.split(r"[;(]", text)[0].strip().removesuffix("…")


def test_every_message_of_the_launcher_is_there():
    found = {*messages("LaunchError", (ROOT / "launch" / "start.py").read_text())} - {""}
    assert len(found) > 4
    table = rows(sections(PAGE)["`make serve` does not start"])
    told = [one for cells in table for one in named(cells[0])]
    assert [one for one in found if not any(t.startswith(one) for t in told)] == []


def test_what_the_makefile_says_is_there():
    makefile = (ROOT / "Makefile").read_text()
    for message in ("Python 3.11 or 3.12 is needed", "python3 cannot make an environment"):
        assert message in makefile
        assert f"`{message}`" in PAGE


def test_every_error_of_loading_is_there():
    of_requests = {
        "InvalidRequest", "InvalidAudio", "Cancelled", "GenerationFailed", "EngineFailed",
    }  # fmt: skip
    tree = {
        name: one
        for name, one in vars(engine_errors).items()
        if isinstance(one, type) and issubclass(one, engine_errors.EngineError)
    }
    leaves = {
        name
        for name, one in tree.items()
        if not any(one in other.__mro__[1:] for other in tree.values())
    }
    table = rows(sections(PAGE)["`make serve` does not start"])
    assert leaves - of_requests <= {one for cells in table for one in named(cells[0])}
