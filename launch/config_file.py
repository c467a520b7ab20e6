"""Checks a whole Ray Serve file, also for unknown keys, which Ray ignores."""

import typing as tp
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.schema import ServeDeploySchema

from api.settings import UserConfig
from deployments.settings import BatchTunables, NoTunables, StrictModel
from graph.settings import INGRESS, LEDGER, MEDIA, AppArgs

IMPORT_PATH = "graph.app:build"
# Ray's schema does not describe their contents; our own models check them.
FREE_FORM = {"args", "user_config", "runtime_env"}

BATCHED = ("encodec", "mbd", "discriminators")
Place = tuple[str | int, ...]
Problem = tuple[Place, str]


class ConfigFileError(Exception):
    """An unusable file; each line of the message names a place in it and what is valid there."""


def read_config_file(path: Path) -> dict[str, tp.Any]:
    """Read and check a Serve file. Raises ConfigFileError."""
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigFileError(f"{path}: {error}") from error
    check_config(data, path)
    return tp.cast(dict[str, tp.Any], data)


def check_config(data: object, name: object) -> None:
    """Check the data of a Serve file. Raises ConfigFileError, whose lines begin with `name`."""
    if not isinstance(data, dict):
        raise ConfigFileError(f"{name}: not a mapping with the key 'applications'")
    problems = (
        list(_find_unknown_keys(data, ServeDeploySchema, ()))
        or list(_find_invalid(data, ServeDeploySchema, ()))
        or list(_check_application(data["applications"]))
    )
    if problems:
        lines = [f"{name}: {'.'.join(map(str, place))}: {what}" for place, what in problems]
        raise ConfigFileError("\n".join(lines))


def _find_unknown_keys(data: object, model: type[BaseModel], at: Place) -> tp.Iterator[Problem]:
    """Yield each key in `data` that `model`, or a model inside it, does not have."""
    if isinstance(data, list):
        for index, item in enumerate(data):
            yield from _find_unknown_keys(item, model, (*at, index))
    elif isinstance(data, dict):
        for key, value in data.items():
            if key not in model.model_fields:
                yield (*at, key), f"unknown key; valid keys: {', '.join(model.model_fields)}"
            elif key not in FREE_FORM and (inner := _get_model(model.model_fields[key].annotation)):
                yield from _find_unknown_keys(value, inner, (*at, key))


def _get_model(annotation: object) -> type[BaseModel] | None:
    """Return the pydantic model inside an annotation such as `list[Model] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_get_model(argument) for argument in tp.get_args(annotation))
    return next((model for model in found if model), None)


def _find_invalid(data: object, model: type[BaseModel], at: Place) -> tp.Iterator[Problem]:
    """Yield the problems that make `data` invalid for `model`."""
    try:
        model.model_validate(data)
    except ValidationError as error:
        for problem in error.errors():
            yield (*at, *problem["loc"]), problem["msg"]


def _check_application(applications: list[dict[str, tp.Any]]) -> tp.Iterator[Problem]:
    """Yield the problems in `args` and in each deployment's `user_config`."""
    if len(applications) != 1 or applications[0]["import_path"] != IMPORT_PATH:
        yield ("applications",), f"must be one, with import_path: {IMPORT_PATH}"
        return
    at: Place = ("applications", 0)
    args = applications[0].get("args") or {}
    if problems := list(_find_invalid(args, AppArgs, (*at, "args"))):
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
            problems = list(_find_invalid(values, tunables[name], there))
            yield from problems
            if name == INGRESS and not problems:
                yield from _find_invalid_tiers(values, valid, there)


def list_tunables(args: AppArgs) -> dict[str, type[StrictModel]]:
    """Return the model of each deployment's `user_config`, by the deployment's name."""
    kinds: dict[str, type[StrictModel]] = dict.fromkeys(BATCHED, BatchTunables)
    named = {model.name: kinds.get(model.kind, NoTunables) for model in args.models}
    return {INGRESS: UserConfig, MEDIA: NoTunables, LEDGER: NoTunables, **named}


def _find_invalid_tiers(values: object, args: AppArgs, at: Place) -> tp.Iterator[Problem]:
    """Yield a problem where a tier names a model that is not in `args`."""
    try:
        UserConfig.model_validate(values).quality.check_models(args.models)
    except ValueError as error:
        yield at, str(error)
