"""Shows a progress bar on stderr, if that is a terminal."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from audiocraft_serve import answers
from audiocraft_serve.workflows import WorkflowProgress


class ProgressBar:
    """A progress bar that disappears at the end of the work; hidden without a terminal."""

    def __init__(self, label: str, clips: int = 1) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
        console = Console(stderr=True)
        self._bar = Progress(
            *columns, console=console, transient=True, disable=not sys.stderr.isatty()
        )
        self._label, self._clips = label, clips
        self._task = self._bar.add_task(f"{label}: waiting", total=None)
        self._clip_progress: dict[int, float] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show_clip(self, progress: answers.Progress) -> None:
        """Show the progress of one clip."""
        self._clip_progress[progress.clip] = progress.done / max(progress.total, 1)
        self.show_stage(progress.stage, sum(self._clip_progress.values()) / self._clips)

    def show_workflow(self, progress: WorkflowProgress) -> None:
        """Show the progress of a workflow."""
        self.show_stage(f"{progress.stage} {progress.part}", progress.progress)

    def show_stage(self, stage: str, completed: float) -> None:
        """Show the name of the present stage, and the completed share from 0 to 1."""
        self._bar.update(
            self._task, description=f"{self._label}: {stage}", completed=completed, total=1.0
        )
