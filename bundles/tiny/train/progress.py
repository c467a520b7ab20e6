"""Tracks the time budget, the log and the resumable state of a training stage."""

import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

SAVE_EVERY_SECONDS = 180
LOG_EVERY_STEPS = 50


def rounded() -> torch.autocast:
    """Return an autocast to bfloat16 if the CPU supports it; emulated it is 20 times slower.

    It is for transformers: convolutions with a stride can be wrong by 92 % on a CPU with AMX.
    """
    able = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast("cpu", torch.bfloat16, enabled=able)


class Progress:
    """The steps and hours of a stage, stored in `work/<stage>/`; a new object resumes from there.

    The state holds the parts that the stage registers, and the steps and hours, so that the budget
    covers all runs. Hours are CPU time of the training thread: time in which it waits for a core
    or is stopped does not count.
    """

    def __init__(self, work: Path, stage: str, budget_hours: float, **parts: Any) -> None:
        self._folder = work / stage
        self._folder.mkdir(parents=True, exist_ok=True)
        self._path = self._folder / "state.pt"
        self._budget, self._parts = budget_hours * 3600, parts
        self.step, self._spent = 0, 0.0
        if self._path.exists():
            state = torch.load(self._path, weights_only=True)
            self.step, self._spent = state["step"], state["spent"]
            for name, part in parts.items():
                part.load_state_dict(state[name])
        self._begun, self._saved = time.thread_time(), time.monotonic()
        self._values: dict[str, list[float]] = defaultdict(list)

    @property
    def spent(self) -> float:
        """Seconds of training so far, summed over all runs."""
        return self._spent + time.thread_time() - self._begun

    @property
    def share(self) -> float:
        """The share of the budget that is spent, 0 to 1."""
        return min(self.spent / self._budget, 1.0)

    def log(self, **values: float) -> None:
        """Count a step, and add its values to the next line of the log."""
        self.step += 1
        for name, value in values.items():
            self._values[name].append(value)
        if self.step % LOG_EVERY_STEPS == 0:
            means = {name: round(sum(of) / len(of), 4) for name, of in self._values.items()}
            line = {"step": self.step, "hours": round(self.spent / 3600, 3), **means}
            self._values.clear()
            print(json.dumps(line), flush=True)
            with (self._folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
        if time.monotonic() - self._saved > SAVE_EVERY_SECONDS:
            self.save()

    def save(self) -> None:
        """Save the state to a new file that then replaces the old one."""
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        state = {"step": self.step, "spent": self.spent, **parts}
        unfinished = self._path.with_suffix(".new")
        torch.save(state, unfinished)
        unfinished.replace(self._path)
        self._saved = time.monotonic()


class Average:
    """An exponential moving average of a model's weights and buffers."""

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self._decay = decay
        self._kept = {name: value.clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: torch.nn.Module, step: int) -> None:
        """Update the average with the model after `step`; integer tensors are copied."""
        # The average follows faster at first, so that the initial weights fade quickly.
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self._kept[name].lerp_(value, 1 - decay)
            else:
                self._kept[name].copy_(value)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the averaged state of the model."""
        return self._kept

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Replace the averaged state."""
        self._kept = dict(state)
