"""`models`: what the server has."""

import typer
from rich.table import Table

from audiocraft_serve.answers import to_json
from audiocraft_serve.cli.command import Told, command


def add(app: typer.Typer) -> None:
    """Add these commands."""

    @command(app, "models")
    def models(told: Told) -> None:
        """List the server's models."""
        with told.client() as client:
            found = client.models()
        table = Table("model", "kind", "weights' licence", box=None)
        for one in found:
            table.add_row(one.id, one.kind, one.license or "not told")
        told.answer([to_json(one) for one in found], table)
