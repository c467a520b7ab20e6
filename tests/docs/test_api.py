"""docs/api.md has every field of a generation, with its default, and no other."""

import pytest
import yaml

from api.schemas.base import RequestModel
from api.schemas.generation import GenerateBody, GenerationsBody
from api.tasks.task_table import TASK_TYPES
from tests.docs.pages import named, page, rows, sections

PAGE = page("api.md")
BODIES: dict[str, type[RequestModel]] = {
    "The short forms": GenerateBody,
    "`/v1/generations`": GenerationsBody,
}

IN_WORDS = ("", "all of it")
"""Where another line tells the default, or words do."""


def told(section: str) -> dict[str, str]:
    """Return what the column of defaults says, by field."""
    table = rows(sections(PAGE)[section])
    return {name: row[1].strip("`") for row in table for name in named(row[0])}


@pytest.mark.parametrize("section", BODIES)
def test_every_field_is_there(section: str):
    files = set(TASK_TYPES["generation"].uploads) if BODIES[section] is GenerationsBody else set()
    assert set(told(section)) == {*BODIES[section].model_fields, *files}


@pytest.mark.parametrize("section", BODIES)
def test_defaults_are_as_told(section: str):
    shown = told(section)
    fixed = {
        name: field.default
        for name, field in BODIES[section].model_fields.items()
        if not field.is_required() and field.default is not None
        if shown[name] not in IN_WORDS
    }
    assert len(fixed) > 4
    assert {name: yaml.safe_load(shown[name].partition(",")[0]) for name in fixed} == fixed
