"""Builds the OpenAPI document from FastAPI's description of the routes."""

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
A route that makes one file sends the file itself as the body of the answer. The header `x-seed`
has the seed that makes the same file again. Every error has the format of `ErrorBody`. It says what
is allowed and has the request id that is also in the log. If the server has API keys, all routes
except the health routes need a key. The limits in this document are the limits of this server, as
in `/v1/limits`; the errors of a model name its own limits. OpenAPI cannot describe the WebSocket
`/v1/live`, so it is not in this document.
"""
TAGS = [
    {"name": "generate", "description": "Generate music and sounds from text."},
    {"name": "workflows", "description": "Generate several clips and mix them."},
    {"name": "jobs", "description": "Run tasks in the background, without an open connection."},
    {"name": "compatible", "description": "Serve the clients of OpenAI and ElevenLabs."},
    {"name": "codec", "description": "Encode audio to EnCodec's codes, and decode codes to audio."},
    {"name": "diffusion", "description": "Decode and regenerate by multi-band diffusion."},
    {"name": "analyze", "description": "Measure how real audio sounds to the discriminators."},
    {"name": "models", "description": "List the models and the limits of this server."},
    {"name": "health", "description": "Check whether the server works, and what it is doing."},
]
SERVERS = [{"url": "/", "description": "The server that sent this document."}]
SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The key of OpenAI's clients."},
    "xi-api-key": {
        "type": "apiKey",
        "in": "header",
        "name": "xi-api-key",
        "description": "The key of ElevenLabs' clients.",
    },
}
ERRORS_OF_ALL = (400, 401, 500)
METHODS = ("get", "post", "put", "patch", "delete")


def install_document(app: FastAPI, service: Service) -> None:
    """Make `app` describe itself with the current limits."""
    described: tuple[UserConfig, Document] | None = None

    def get_document() -> Document:
        nonlocal described
        if described is None or described[0] is not service.limits:
            described = service.limits, _build_document(app, service.limits)
        return described[1]

    app.openapi = get_document  # type: ignore[method-assign]  # FastAPI documents this way to extend it


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
    for unused in ("HTTPValidationError", "ValidationError"):  # ours are ErrorBody
        schemas.pop(unused, None)
    document["components"]["securitySchemes"] = SECURITY_SCHEMES
    document["security"] = [{name: []} for name in SECURITY_SCHEMES]
    if not limits.keys:
        document["security"].append({})  # a request needs no key
    _fill_in_limits(document, limits)
    for path, methods in document["paths"].items():
        for operation in (methods[method] for method in METHODS if method in methods):
            _complete_operation(operation, open_to_all=path in OPEN_PATHS)
            _name_bodies(operation, schemas)
    return document


def _complete_operation(operation: Document, *, open_to_all: bool) -> None:
    """Add the security of an operation, and the errors that occur before its route."""
    answers = operation["responses"]
    if "HTTPValidationError" in str(answers.get("422")):
        del answers["422"]  # every text is valid in the path and query
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
    """Move the schemas of bodies to the components, so that generated clients name them."""
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
    """Return the schema of a form, which has no null; an empty field counts as left out."""
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
    """Replace the names of limits in all schemas by the values of this server."""
    for schema in _iterate_dicts(document):
        if schema.get("maximum") == 2**63:  # FastAPI has rounded the value
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
