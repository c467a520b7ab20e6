"""docs/configuration.md has every key that the settings have, with its default, and no other."""

import ast
import re
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from ray.serve.schema import HTTPOptionsSchema

import api.settings
import deployments.settings
import graph.settings
from api.settings import KeySettings, Tier, Tiers, UserConfig
from deployments.settings import (
    AudioGenSettings,
    Autoscaling,
    BatchedModelSettings,
    BatchTunables,
    DiffusionSettings,
    DiscriminatorsSettings,
    EnCodecSettings,
    EngineArgs,
    ModelSettings,
    MusicGenSettings,
    NoTunables,
    Placement,
    RedisServer,
    StrictModel,
    TokenModelSettings,
)
from graph.settings import (
    AppArgs,
    ContentCredentials,
    FolderStore,
    IngressSettings,
    JobsSettings,
    Limits,
    MediaSettings,
    RedisStore,
)
from launch.config_file import check_config
from launch.start import SERVE_ENVIRONMENT
from tests.docs.pages import ROOT, blocks, named, page, rows, sections

PAGE = page("configuration.md")
SECTIONS: dict[str, type[StrictModel]] = {
    "`args`": AppArgs,
    "Placement: of every model, of `ingress` and of `media`": Placement,
    "Bounds of `replicas`": Autoscaling,
    "Every model": ModelSettings,
    "Language models: `musicgen` and `audiogen`": TokenModelSettings,
    "`engine`": EngineArgs,
    "Kind `musicgen`": MusicGenSettings,
    "Kind `audiogen`": AudioGenSettings,
    "Kind `encodec`": EnCodecSettings,
    "Kind `mbd`": DiffusionSettings,
    "Kind `discriminators`": DiscriminatorsSettings,
    "`ingress`": IngressSettings,
    "`jobs`": JobsSettings,
    "`store`, a folder": FolderStore,
    "`store`, Redis": RedisStore,
    "`content_credentials`": ContentCredentials,
    "`user_config` of `ingress`": UserConfig,
    "`quality`": Tiers,
    "A tier": Tier,
    "`keys`": KeySettings,
    "`user_config` of `encodec`, `mbd` and `discriminators`": BatchTunables,
}
# Nothing of their own that a table could have.
PLAIN = {StrictModel, NoTunables, MediaSettings, Limits, BatchedModelSettings}
WHERE_INHERITED = (Placement, ModelSettings, TokenModelSettings)
"""Whose keys have a table of their own, which those that inherit them do not repeat."""


def own_fields(model: type[StrictModel]) -> dict[str, FieldInfo]:
    above = [other for other in WHERE_INHERITED if other in model.__mro__[1:]]
    elsewhere = {name for other in above for name in other.model_fields}
    if model is TokenModelSettings:  # each kind has a default of its own
        elsewhere.add("role")
    elif issubclass(model, TokenModelSettings):
        elsewhere.remove("role")
    return {name: field for name, field in model.model_fields.items() if name not in elsewhere}


def default_of(field: FieldInfo) -> Any:
    """What the column says."""
    if field.is_required():
        return "needed"
    if field.default is None:
        return "none"
    if isinstance(field.default, Tier):
        return field.default.model_dump(exclude_none=True)
    if isinstance(field.default, BaseModel):
        return "below"
    return list(field.default) if isinstance(field.default, tuple) else field.default


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_there_with_its_default(section: str):
    told = {
        key.strip("`"): yaml.safe_load(value) for key, value, _ in rows(sections(PAGE)[section])
    }
    fields = own_fields(SECTIONS[section])
    assert told == {name: default_of(field) for name, field in fields.items()}


def test_every_strict_model_has_a_table():
    found = {
        one
        for module in (deployments.settings, graph.settings, api.settings)
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, StrictModel)
    }
    assert found - PLAIN - {RedisServer} == set(SECTIONS.values())
    assert set(RedisServer.model_fields) < set(RedisStore.model_fields)


def test_the_ingress_and_media_take_fewer_cpus():
    assert IngressSettings().num_cpus == MediaSettings().num_cpus == 0.1
    assert "Of `ingress` and `media` 0.1 by default" in PAGE


def test_the_example_is_valid():
    (example,) = blocks(PAGE, "yaml")
    check_config(yaml.safe_load(example), "example")


def test_every_variable_of_the_environment_is_there():
    strings = {
        node.value
        for folder in ("engine", "deployments", "graph", "api", "launch")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    ours = {one for one in strings if re.fullmatch(r"(AUDIOCRAFT|OTEL_EXPORTER)_[A-Z_]+", one)}
    told = rows(sections(PAGE)["The environment"])
    variables = {name for cells in told for name in named(cells[0])}
    assert len(ours) >= 2
    assert ours | set(SERVE_ENVIRONMENT) <= variables
    meanings = {named(cells[0])[0]: cells[1] for cells in told if named(cells[0])}
    for name, value in SERVE_ENVIRONMENT.items():
        assert f"`{value}`" in meanings[name]


def test_serves_own_default_is_as_told():
    assert f"`keep_alive_timeout_s` ({HTTPOptionsSchema().keep_alive_timeout_s})" in PAGE
