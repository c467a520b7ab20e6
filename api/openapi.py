"""The API's OpenAPI document: what FastAPI knows of the routes, and what holds for all of them."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.guards import MULTIPART
from api.keys import OPEN_PATHS
from api.routes.documentation import ERRORS
from api.schemas.rules import LIMITS
from api.service import Service
from api.settings import UserConfig

Document = dict[str, Any]
ABOUT = """
Files are answered as they are; `x-seed` names the seed that makes the same file again.
Every error has one shape, `ErrorBody`, says what is allowed, and names the request as the log does.
Where keys are configured, all but the health routes want one. Bounds given here are this server's,
as `/v1/limits` tells them; those of a model are told by its errors. Not described here, since
OpenAPI cannot: `/v1/live`, a WebSocket.
"""
TAGS = [
    {"name": "generate", "description": "Text to music and sounds."},
    {"name": "workflows", "description": "Several clips, generated at once and mixed."},
    {"name": "jobs", "description": "The same, when there is time; nobody waits connected."},
    {"name": "compatible", "description": "The same, as other services' clients call it."},
    {"name": "codec", "description": "Audio to EnCodec's codes, and back."},
    {"name": "diffusion", "description": "Codes or audio to audio, by multi-band diffusion."},
    {"name": "analyze", "description": "How real audio sounds to the discriminators."},
    {"name": "models", "description": "What this server has, and what one may ask of it."},
    {"name": "health", "description": "Whether it works, and what it is doing."},
]
SERVERS = [{"url": "/", "description": "The server that gave this document."}]
SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "As OpenAI's clients send keys."},
    "xi-api-key": {
        "type": "apiKey",
        "in": "header",
        "name": "xi-api-key",
        "description": "As ElevenLabs' clients send keys.",
    },
}
ERRORS_OF_ALL = (400, 401, 500)
METHODS = ("get", "post", "put", "patch", "delete")


def install_document(app: FastAPI, service: Service) -> None:
    """Have `app` describe itself with the limits that hold now."""
    described: tuple[UserConfig, Document] | None = None

    def get_document() -> Document:
        nonlocal described
        if described is None or described[0] is not service.limits:
            described = service.limits, _build_document(app, service.limits)
        return described[1]

    app.openapi = get_document  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _build_document(app: FastAPI, limits: UserConfig) -> Document:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
        servers=app.servers,
    )
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own; ours is ErrorBody
        schemas.pop(unused, None)
    document["components"]["securitySchemes"] = SECURITY_SCHEMES
    document["security"] = [{name: []} for name in SECURITY_SCHEMES]
    if not limits.keys:
        document["security"].append({})  # none is needed
    _fill_in_limits(document, limits)
    for path, methods in document["paths"].items():
        for operation in (methods[method] for method in METHODS if method in methods):
            _complete_operation(operation, open_to_all=path in OPEN_PATHS)
            _name_bodies(operation, schemas)
    return document


def _complete_operation(operation: Document, *, open_to_all: bool) -> None:
    """Add what FastAPI does not know: who may ask, and errors that come before any route."""
    answers = operation["responses"]
    if "HTTPValidationError" in str(answers.get("422")):
        del answers["422"]  # a path or query of any text is valid
    for status in ERRORS_OF_ALL:
        answers.setdefault(str(status), _describe_error(status))
    if open_to_all:
        operation["security"] = []
        del answers["401"]
    operation["responses"] = dict(sorted(answers.items()))


def _describe_error(status: int) -> Document:
    answer = {name: value for name, value in ERRORS[status].items() if name != "model"}
    schema = {"$ref": "#/components/schemas/ErrorBody"}
    return answer | {"content": {"application/json": {"schema": schema}}}


def _name_bodies(operation: Document, schemas: Document) -> None:
    """Move each body's schema to the components, so that generated clients have names for them."""
    for kind, media in operation.get("requestBody", {}).get("content", {}).items():
        schema = media["schema"]
        if "$ref" in schema:
            _, _, name = schema["$ref"].rpartition("/")
            schema = schemas.pop(name) if kind == MULTIPART else schemas[name]
        if kind == MULTIPART:
            words = operation["operationId"].split("_")
            schema["title"] = "".join(map(str.capitalize, words)) + "Form"
            schema |= _describe_form(schema)
        schemas[schema["title"]] = schema
        media["schema"] = {"$ref": f"#/components/schemas/{schema['title']}"}


def _describe_form(schema: Document) -> Document:
    """Return a form's schema: it has no null, and an empty field is one that is left out."""
    fields = {}
    for name, field in schema["properties"].items():
        kind = {**field.pop("anyOf", [{}])[0], **field}
        is_file = "contentMediaType" in kind or kind.get("format") == "binary"
        if name in schema.get("required", ()) or is_file:
            fields[name] = kind
        elif kind["type"] == "array":
            kind.pop("minItems", None)
            fields[name] = kind | {"default": []}
        else:
            words = {key: kind.pop(key) for key in ("title", "description") if key in kind}
            default = {"default": kind.pop("default", "")}
            fields[name] = words | {"anyOf": [kind, {"const": ""}]} | default
    return {"properties": fields, "additionalProperties": False}


def _fill_in_limits(document: Document, limits: UserConfig) -> None:
    """Put this server's limits where a schema names them."""
    for schema in _iterate_dicts(document):
        if schema.get("maximum") == 2**63:  # FastAPI has rounded it
            schema["maximum"] = 2**63 - 1
        for keyword, name in schema.pop(LIMITS, {}).items():
            bound = getattr(limits, name)
            schema[keyword] = min(bound, schema.get(keyword, bound))


def _iterate_dicts(node: Any) -> Iterator[Document]:
    if isinstance(node, dict):
        yield node
    for child in (
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    ):
        yield from _iterate_dicts(child)
