"""Checks a whole Ray Serve file, also where Ray would ignore a key that it does not know."""

import typing as tp
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.schema import ServeDeploySchema

from api.settings import UserConfig
from deployments.settings import BatchTunables, NoTunables, StrictModel
from graph.settings import INGRESS, LEDGER, MEDIA, AppArgs

IMPORT_PATH = "graph.app:build"
# Their contents are not described by Ray's schema; ours are checked by our own models.
FREE_FORM = {"args", "user_config", "runtime_env"}

BATCHED = ("encodec", "mbd", "discriminators")
Place = tuple[str | int, ...]
Problem = tuple[Place, str]


class ConfigFileError(Exception):
    """The file cannot be used; each line of the message names a place in it and what is valid."""


def read_config_file(path: Path) -> dict[str, tp.Any]:
    """Read and check a Serve file. Raises ConfigFileError."""
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigFileError(f"{path}: {error}") from error
    check_config(data, path)
    return tp.cast(dict[str, tp.Any], data)


def check_config(data: object, name: object) -> None:
    """Check what a Serve file holds. Raises ConfigFileError, whose lines begin with `name`."""
    if not isinstance(data, dict):
        raise ConfigFileError(f"{name}: not a mapping with the key 'applications'")
    problems = (
        list(_unknown_keys(data, ServeDeploySchema, ()))
        or list(_invalid(data, ServeDeploySchema, ()))
        or list(_check_application(data["applications"]))
    )
    if problems:
        lines = [f"{name}: {'.'.join(map(str, place))}: {what}" for place, what in problems]
        raise ConfigFileError("\n".join(lines))


def _unknown_keys(data: object, model: type[BaseModel], at: Place) -> tp.Iterator[Problem]:
    """Yield each key in `data` that `model`, or a model inside it, does not have."""
    if isinstance(data, list):
        for index, item in enumerate(data):
            yield from _unknown_keys(item, model, (*at, index))
    elif isinstance(data, dict):
        for key, value in data.items():
            if key not in model.model_fields:
                yield (*at, key), f"unknown key; valid keys: {', '.join(model.model_fields)}"
            elif key not in FREE_FORM and (inner := _inner(model.model_fields[key].annotation)):
                yield from _unknown_keys(value, inner, (*at, key))


def _inner(annotation: object) -> type[BaseModel] | None:
    """Return the pydantic model inside an annotation such as `list[Model] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_inner(argument) for argument in tp.get_args(annotation))
    return next((model for model in found if model), None)


def _invalid(data: object, model: type[BaseModel], at: Place) -> tp.Iterator[Problem]:
    """Yield what keeps `data` from being a `model`."""
    try:
        model.model_validate(data)
    except ValidationError as error:
        for problem in error.errors():
            yield (*at, *problem["loc"]), problem["msg"]


def _check_application(applications: list[dict[str, tp.Any]]) -> tp.Iterator[Problem]:
    """Yield what is wrong in our own parts: `args`, and each deployment's `user_config`."""
    if len(applications) != 1 or applications[0]["import_path"] != IMPORT_PATH:
        yield ("applications",), f"must be one, with import_path: {IMPORT_PATH}"
        return
    at: Place = ("applications", 0)
    args = applications[0].get("args") or {}
    if problems := list(_invalid(args, AppArgs, (*at, "args"))):
        yield from problems
        return
    valid = AppArgs.model_validate(args)
    tunables = list_tunables(valid)
    for index, deployment in enumerate(applications[0].get("deployments") or []):
        here, name = (*at, "deployments", index), deployment["name"]
        if name not in tunables:
            yield (*here, "name"), f"no deployment {name!r}; valid: {', '.join(tunables)}"
        else:
            values, there = deployment.get("user_config") or {}, (*here, "user_config")
            problems = list(_invalid(values, tunables[name], there))
            yield from problems
            if name == INGRESS and not problems:
                yield from _invalid_tiers(values, valid, there)


def list_tunables(args: AppArgs) -> dict[str, type[StrictModel]]:
    """Return, for each deployment, the model of its `user_config`."""
    kinds: dict[str, type[StrictModel]] = dict.fromkeys(BATCHED, BatchTunables)
    named = {model.name: kinds.get(model.kind, NoTunables) for model in args.models}
    return {INGRESS: UserConfig, MEDIA: NoTunables, LEDGER: NoTunables, **named}


def _invalid_tiers(values: object, args: AppArgs, at: Place) -> tp.Iterator[Problem]:
    """Yield where tiers name models that `args` does not have."""
    try:
        UserConfig.model_validate(values).quality.check_models(args.models)
    except ValueError as error:
        yield at, str(error)
