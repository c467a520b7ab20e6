"""Checks a whole Ray Serve file, also where Ray would ignore a key that it does not know."""

import typing as tp
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.schema import ServeDeploySchema

from graph.settings import AppArgs

IMPORT_PATH = "graph.app:build"
FREE_FORM = {"args", "user_config", "runtime_env"}


class ConfigFileError(Exception):
    """The file cannot be used; each line of the message names a key and what is valid."""


def read_config_file(path: Path) -> dict[str, tp.Any]:
    """Read and check a Serve file. Raises ConfigFileError."""
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigFileError(f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise ConfigFileError(f"{path}: not a mapping with `applications`")
    problems = list(_unknown_keys(data, ServeDeploySchema, ""))
    if not problems:
        problems = _problems_of(lambda: ServeDeploySchema.model_validate(data), "")
    if not problems:
        problems = [p for number in range(len(data["applications"])) for p in _check(data, number)]
    if problems:
        raise ConfigFileError("\n".join(f"{path}: {problem}" for problem in problems))
    return data


def _check(data: dict[str, tp.Any], number: int) -> list[str]:
    """Check the `args` of one application and the `user_config` of its deployments."""
    application = data["applications"][number]
    where = f"applications.{number}"
    if application["import_path"] != IMPORT_PATH:
        return [f"{where}.import_path: must be {IMPORT_PATH}"]
    raw = application.get("args") or {}
    if problems := _problems_of(lambda: AppArgs.model_validate(raw), f"{where}.args"):
        return problems
    tunables = AppArgs.model_validate(raw).tunables()
    for index, deployment in enumerate(application.get("deployments") or []):
        place, name = f"{where}.deployments.{index}", deployment["name"]
        if name not in tunables:
            problems.append(f"{place}.name: no deployment {name!r}; valid: {', '.join(tunables)}")
        elif "user_config" in deployment:
            model, values = tunables[name], deployment["user_config"]
            problems += _problems_of(
                lambda m=model, v=values: m.model_validate(v),  # type: ignore[misc]
                f"{place}.user_config",
            )
    return problems


def _problems_of(validate: tp.Callable[[], object], where: str) -> list[str]:
    try:
        validate()
    except ValidationError as error:
        return [
            f"{'.'.join(filter(None, [where, *map(str, problem['loc'])]))}: {problem['msg']}"
            for problem in error.errors()
        ]
    return []


def _unknown_keys(data: object, model: type[BaseModel], where: str) -> tp.Iterator[str]:
    """Yield a line for each key in `data` that `model`, or a model inside it, does not have."""
    if not isinstance(data, dict):
        return
    for key, value in data.items():
        if key not in model.model_fields:
            valid = ", ".join(model.model_fields)
            yield f"{where}{key}: unknown key '{key}'; valid keys: {valid}"
        elif key not in FREE_FORM and (inner := _inner(model.model_fields[key].annotation)):
            for index, item in enumerate(value) if isinstance(value, list) else [("", value)]:
                yield from _unknown_keys(item, inner, ".".join(filter(None, [f"{where}{key}", str(index)])) + ".")


def _inner(annotation: object) -> type[BaseModel] | None:
    """Return the pydantic model inside an annotation such as `list[Model] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_inner(argument) for argument in tp.get_args(annotation))
    return next((model for model in found if model), None)
