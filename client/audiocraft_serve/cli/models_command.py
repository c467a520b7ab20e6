"""Defines the command `models`."""

import typer
from rich.table import Table

from audiocraft_serve.answers import to_json
from audiocraft_serve.cli.context import CommandContext, register_command


def add_commands(app: typer.Typer) -> None:
    """Register the command."""

    @register_command(app, "models")
    def list_models(context: CommandContext) -> None:
        """List the server's models."""
        with context.open_client() as client:
            found = client.models()
        table = Table("model", "kind", "weights' licence", box=None)
        for one in found:
            table.add_row(one.id, one.kind, one.license or "unknown")
        context.print_answer([to_json(one) for one in found], table)
