"""How far it is, on stderr, where that is a terminal."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from audiocraft_serve import answers
from audiocraft_serve.workflows import WorkflowProgress


class Bar:
    """A bar that vanishes when all is done; none where no terminal shows it."""

    def __init__(self, label: str, clips: int = 1) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
        console = Console(stderr=True)
        self._shown = Progress(
            *columns, console=console, transient=True, disable=not sys.stderr.isatty()
        )
        self._label, self._clips = label, clips
        self._task = self._shown.add_task(f"{label}: waits", total=None)
        self._parts: dict[int, float] = {}

    def __enter__(self) -> Self:
        self._shown.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._shown.stop()

    def take(self, told: answers.Progress) -> None:
        """Show how far one of the clips is."""
        self._parts[told.clip] = told.done / max(told.total, 1)
        self.show(told.stage, sum(self._parts.values()) / self._clips)

    def take_part(self, told: WorkflowProgress) -> None:
        """Show how far a workflow is."""
        self.show(f"{told.stage} {told.part}", told.progress)

    def show(self, stage: str, part: float) -> None:
        """Show what is going on, and how much of it is done, from 0 to 1."""
        self._shown.update(
            self._task, description=f"{self._label}: {stage}", completed=part, total=1.0
        )
