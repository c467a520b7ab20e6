"""docs/adding-a-model.md: its export is run, and what it asks of a new kind all kinds have."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from audiocraft.models import builders
from omegaconf import DictConfig

from bundles.tiny import recipe
from deployments.settings import AnyModelSettings
from engine.checkpoints import load_language_model, read_checkpoint
from engine.fetch import LOADERS
from graph.app import DEPLOYMENTS
from graph.settings import OURS, AppArgs
from tests.conftest import Checkpoints
from tests.docs.pages import blocks, named, page, rows, sections

PAGE = page("adding-a-model.md")


def a_training(path: Path, text_encoder: str) -> dict[str, Any]:
    """Write what AudioCraft's solver leaves of a language model; return its weights."""
    torch.manual_seed(0)
    cfg: DictConfig = recipe.language_model_config(10.0)
    cfg.conditioners.description.t5.name = text_encoder
    state: dict[str, Any] = builders.get_lm_model(cfg).state_dict()
    package = {"best_state": {"model": state}, "fsdp_best_state": {}, "xp.cfg": cfg}
    torch.save(package, path)
    return state


def test_a_training_becomes_a_folder_that_loads(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trained = a_training(tmp_path / "checkpoint.th", checkpoints.text_encoder)
    (script,) = blocks(PAGE, "python")
    monkeypatch.chdir(tmp_path)
    exec(compile(script, "adding-a-model.md", "exec"), {})
    model = load_language_model(str(tmp_path / "my-model"), device="cpu", dtype="float32")
    loaded = model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in trained.items())
    codec = read_checkpoint(tmp_path / "my-model" / "compression_state_dict.bin")
    assert codec["pretrained"] == "facebook/encodec_32khz"


def test_the_lines_are_valid():
    (example,) = blocks(PAGE, "yaml")
    assert len(AppArgs.model_validate(yaml.safe_load(example)).models) == 2


def test_every_kind_is_where_the_page_says():
    union, _ = get_args(AnyModelSettings)
    kinds = {get_args(one.model_fields["kind"].annotation)[0] for one in get_args(union)}
    assert kinds == set(LOADERS) == set(DEPLOYMENTS) - set(OURS)
    table = rows(sections(PAGE)["A new kind"])
    wanted = {named(row[0])[0] for row in table if len(row) == 2 and "/" not in row[0]}
    assert len(wanted) == 5
    for kind in kinds:
        assert wanted <= set(dir(DEPLOYMENTS[kind].func_or_class)), kind
