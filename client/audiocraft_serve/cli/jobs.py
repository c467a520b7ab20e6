"""`jobs`: what need not be waited for."""

from pathlib import Path
from typing import Annotated

import typer

from audiocraft_serve.answers import Job, to_json
from audiocraft_serve.cli import files
from audiocraft_serve.cli.command import Options, Told, command
from audiocraft_serve.cli.generate import save
from audiocraft_serve.cli.options import CLIP
from audiocraft_serve.cli.progress import Bar

Id = Annotated[str, typer.Argument(metavar="ID", help="As `jobs submit` told it.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="A file; -: stdout.")]


def add(app: typer.Typer) -> None:
    """Add these commands."""
    jobs = typer.Typer(no_args_is_help=True, help="Have clips made when there is time.")
    app.add_typer(jobs, name="jobs")

    @command(jobs, "submit", *CLIP)
    def submit(
        told: Told,
        prompts: Annotated[
            list[str], typer.Argument(metavar="PROMPT...", help="What to hear; -: stdin.")
        ],
        options: Options,
        webhook: Annotated[str | None, typer.Option(help="An https address to tell.")] = None,
    ) -> None:
        """Ask for clips; print the job's id."""
        texts = [files.text_of(prompt) for prompt in prompts]
        wanted = texts[0] if len(texts) == 1 else texts
        with told.client() as client:
            job = client.submit_job(wanted, webhook=webhook, **options)
        told.answer(to_json(job), job.id)

    @command(jobs, "status")
    def status(told: Told, job_id: Id) -> None:
        """Say how far a job is."""
        with told.client() as client:
            job = client.get_job(job_id)
        told.answer(to_json(job), _shown(job))

    @command(jobs, "wait")
    def wait(
        told: Told,
        job_id: Id,
        output: Annotated[
            Path | None, typer.Option("--output", "-o", help="Where to write what it made.")
        ] = None,
    ) -> None:
        """Wait until a job has finished. To interrupt this does not cancel the job."""
        with told.client() as client, Bar(f"job {job_id[:8]}") as bar:
            made = client.wait_for_job(
                job_id, on_progress=lambda job: bar.show(job.status, job.progress)
            )
            job = client.get_job(job_id)
        if output:
            save(told, made, output)
        else:
            told.answer(to_json(job), _shown(job))

    @command(jobs, "fetch")
    def fetch(told: Told, job_id: Id, output: Output) -> None:
        """Write what a job has made."""
        with told.client() as client:
            save(told, client.fetch_job(job_id), output)

    @command(jobs, "cancel")
    def cancel(told: Told, job_id: Id) -> None:
        """Cancel a job that waits or runs; delete one that has ended, with its audio."""
        with told.client() as client:
            job = client.cancel_job(job_id)
        told.answer(to_json(job), _shown(job))


def _shown(job: Job) -> str:
    facts = list[str]([job.status])
    if job.position:
        facts.append(f"place {job.position}")
    if job.status == "running":
        facts.append(f"{100 * job.progress:.0f} %")
    if job.eta_seconds is not None and not job.has_ended:
        facts.append(f"ends in about {job.eta_seconds:.0f} s")
    if job.error:
        facts.append(str(job.error["message"]))
    return ", ".join(facts)
