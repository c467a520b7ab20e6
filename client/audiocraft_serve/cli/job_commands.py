"""Defines the commands of `jobs`: generations that run without an open connection."""

from pathlib import Path
from typing import Annotated, cast

import typer

from audiocraft_serve.answers import Job, JobStatus, to_json
from audiocraft_serve.cli import files
from audiocraft_serve.cli.context import CommandContext, Options, register_command
from audiocraft_serve.cli.generate_commands import save_clips
from audiocraft_serve.cli.options import CLIP_OPTIONS
from audiocraft_serve.cli.progress_bar import ProgressBar

JobId = Annotated[str, typer.Argument(metavar="ID", help="Id that `jobs submit` printed.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Output file; - is stdout.")]


def add_commands(app: typer.Typer) -> None:
    """Register the commands."""
    jobs = typer.Typer(no_args_is_help=True, help="Generate clips in the background.")
    app.add_typer(jobs, name="jobs")

    @register_command(jobs, "submit", *CLIP_OPTIONS)
    def submit_job(
        context: CommandContext,
        prompts: Annotated[
            list[str],
            typer.Argument(metavar="PROMPT...", help="Texts to generate from; - is stdin."),
        ],
        options: Options,
        webhook: Annotated[
            str | None, typer.Option(help="An https address that is called when the job ends.")
        ] = None,
    ) -> None:
        """Submit a job, and print its id."""
        texts = [files.read_prompt(prompt) for prompt in prompts]
        prompt = texts[0] if len(texts) == 1 else texts
        with context.open_client() as client:
            job = client.submit_job(prompt, webhook=webhook, **options)
        context.print_answer(to_json(job), job.id)

    @register_command(jobs, "status")
    def show_status(context: CommandContext, job_id: JobId) -> None:
        """Show the status of a job."""
        with context.open_client() as client:
            job = client.get_job(job_id)
        context.print_answer(to_json(job), _describe_job(job))

    @register_command(jobs, "wait")
    def wait_for_job(
        context: CommandContext,
        job_id: JobId,
        output: Annotated[
            Path | None, typer.Option("--output", "-o", help="File for the job's result.")
        ] = None,
    ) -> None:
        """Wait until a job has finished. Interrupting this command does not cancel the job."""
        with context.open_client() as client, ProgressBar(f"job {job_id[:8]}") as bar:
            generation = client.wait_for_job(
                job_id, on_progress=lambda job: bar.show_stage(job.status, job.progress)
            )
            job = client.get_job(job_id)
        if output:
            save_clips(context, generation, output)
        else:
            context.print_answer(to_json(job), _describe_job(job))

    @register_command(jobs, "fetch")
    def fetch_job(context: CommandContext, job_id: JobId, output: Output) -> None:
        """Write the result of a finished job to a file."""
        with context.open_client() as client:
            save_clips(context, client.fetch_job(job_id), output)

    @register_command(jobs, "cancel")
    def cancel_job(context: CommandContext, job_id: JobId) -> None:
        """Cancel a job that waits or runs. A job that has ended keeps its result."""
        with context.open_client() as client:
            job = client.cancel_job(job_id)
        context.print_answer(to_json(job), _describe_job(job))

    @register_command(jobs, "delete")
    def delete_job(context: CommandContext, job_id: JobId) -> None:
        """Delete a job with its result. A job that has not ended is cancelled first."""
        with context.open_client() as client:
            client.delete_job(job_id)

    @register_command(jobs, "list")
    def list_jobs(
        context: CommandContext,
        status: Annotated[str | None, typer.Option(help="Only jobs with this status.")] = None,
        limit: Annotated[int, typer.Option(help="The most jobs to show.")] = 20,
    ) -> None:
        """List your jobs, the newest first."""
        with context.open_client() as client:
            page = client.list_jobs(status=cast(JobStatus | None, status), limit=limit)
        lines = "\n".join(f"{job.id}  {_describe_job(job)}" for job in page.jobs)
        context.print_answer([to_json(job) for job in page.jobs], lines)


def _describe_job(job: Job) -> str:
    facts = list[str]([job.status])
    if job.position:
        facts.append(f"position {job.position} in the queue")
    if job.status == "running":
        facts.append(f"{100 * job.progress:.0f} %")
    if job.eta_seconds is not None and not job.has_ended:
        facts.append(f"ends in about {job.eta_seconds:.0f} s")
    if job.error:
        facts.append(str(job.error["message"]))
    return ", ".join(facts)
