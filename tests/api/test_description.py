"""The OpenAPI document: complete, valid, and true of this server's limits."""

import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, NamedTuple

import jsonschema_rs
import pytest
import schemathesis
from fastapi import FastAPI

from api.ingress import create_app
from api.keys import OPEN_PATHS
from api.settings import KeySettings, UserConfig
from tests.api.conftest import serving

Json = dict[str, Any]
OF_ALL = {"400", "500"}
OF_BODIES = {"413", "415", "422", "429", "503"}


class Operation(NamedTuple):
    path: str
    method: str
    said: Json

    def bodies(self) -> Json:
        return self.said.get("requestBody", {}).get("content", {})


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(serving([], {}, UserConfig()))


@pytest.fixture(scope="module")
def document(app: FastAPI) -> Json:
    return app.openapi()


def operations(document: Json) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            yield Operation(path, method, said)


def resolved(document: Json, schema: Json) -> Json:
    _, _, name = schema.get("$ref", "").rpartition("/")
    return document["components"]["schemas"][name] if name else schema


def files_of(schema: Json) -> set[str]:
    """The fields of a form that are files."""
    fields = schema["properties"].items()
    return {
        name
        for name, field in fields
        if "contentMediaType" in field or field.get("format") == "binary"
    }


def test_the_document_is_valid(document: Json):
    assert document["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(deepcopy(document)).validate()
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)
    assert "x-limits" not in str(document)


def test_every_operation_is_named_and_described(document: Json):
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}
    names = [operation.said["operationId"] for operation in operations(document)]
    assert len(set(names)) == len(names) > 0
    for path, method, said in operations(document):
        where = f"{method} {path}"
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+", said["operationId"]), where
        assert said["summary"], where
        assert said["description"], where
        assert said["tags"], where
        assert all(tags[tag] for tag in said["tags"]), where
        for parameter in said.get("parameters", []):
            assert parameter["description"], (where, parameter["name"])


def test_every_error_that_can_occur_has_the_one_shape(document: Json):
    for operation in operations(document):
        answers = operation.said["responses"]
        needed = OF_ALL if operation.path in OPEN_PATHS else OF_ALL | {"401"}
        needed = needed | (OF_BODIES if operation.bodies() else set())
        assert needed <= set(answers), (operation.path, needed - set(answers))
        for status, answer in answers.items():
            if int(status) >= 400:
                (content,) = answer["content"].items()
                shape = {"schema": {"$ref": "#/components/schemas/ErrorBody"}}
                assert content == ("application/json", shape), (operation.path, status)
                assert answer["description"], (operation.path, status)
    assert "HTTPValidationError" not in str(document)


def test_every_answer_has_its_media_types_and_headers(document: Json):
    for operation in operations(document):
        good = [a for status, a in operation.said["responses"].items() if status < "300"]
        assert good, operation.path
        for answer in good:
            for kind, media in answer.get("content", {}).items():
                assert media["schema"], (operation.path, kind)
                if kind.startswith("audio/"):
                    assert media["schema"]["format"] == "binary", (operation.path, kind)
                    assert "x-model" in answer["headers"], (operation.path, kind)


def test_every_body_has_examples_that_fit_it(document: Json):
    seen = 0
    for operation in operations(document):
        for kind, media in operation.bodies().items():
            where = operation.path, kind
            schema = resolved(document, media["schema"])
            whole = media["schema"] | {"components": document["components"]}
            validator = jsonschema_rs.validator_for(whole)
            for example in media["examples"].values():
                assert example["summary"], where
                validator.validate(example["value"])
                seen += 1
            if kind == "multipart/form-data":
                assert media["encoding"].keys() == files_of(schema), where
                assert schema["additionalProperties"] is False, where
    assert seen >= 15


def test_links_lead_to_operations(document: Json):
    names = {operation.said["operationId"] for operation in operations(document)}
    links = [
        link["operationId"]
        for operation in operations(document)
        for answer in operation.said["responses"].values()
        for link in answer.get("links", {}).values()
    ]
    assert {"decode_codes", "get_model"} <= set(links) <= names


def test_bodies_have_names_for_generated_clients(document: Json):
    for operation in operations(document):
        for media in operation.bodies().values():
            _, _, name = media["schema"]["$ref"].rpartition("/")
            assert re.fullmatch(r"([A-Z][a-z]+)+(Body|Form)", name), operation.path


def test_the_limits_are_this_servers():
    service = serving([], {}, UserConfig(max_duration_s=4, max_text_chars=50, max_clips=3))
    app = create_app(service)

    def fields(name: str) -> Json:
        return app.openapi()["components"]["schemas"][name]["properties"]

    assert fields("GenerateBody")["text"]["maxLength"] == 50
    duration = fields("GenerateBody")["duration"]
    assert (duration["maximum"], duration["default"]) == (4, 4)
    assert fields("GenerationsBody")["prompts"]["maxItems"] == 3
    assert app.openapi() is app.openapi(), "it is built once"
    service.limits = UserConfig(max_duration_s=20)
    duration = fields("GenerateBody")["duration"]
    assert (duration["maximum"], duration["default"]) == (20, 10)


def test_keys_are_asked_for_where_there_are_keys():
    needed = [{"bearer": []}, {"xi-api-key": []}]
    keys = (KeySettings(name="one", sha256=["0" * 64]),)
    closed = create_app(serving([], {}, UserConfig(keys=keys))).openapi()
    assert closed["security"] == needed
    assert closed["paths"]["/healthz"]["get"]["security"] == []
    assert create_app(serving([], {}, UserConfig())).openapi()["security"] == [*needed, {}]
