"""Reads the documentation: its sections, tables and fenced blocks."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text()


def sections(text: str) -> dict[str, str]:
    """Return what stands below each heading, until the next one of any level."""
    parts = re.split(r"^#+ (.+)\n", blocks_out(text), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def rows(text: str) -> list[list[str]]:
    """Return the cells of every row of a table, without heads and rules."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = {number - 1 for number, line in enumerate(lines) if re.fullmatch(r"[|\-: ]+", line)}
    kept = [
        line for number, line in enumerate(lines) if number not in heads and number - 1 not in heads
    ]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in kept]


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def blocks_out(text: str) -> str:
    """Leave out fenced blocks, whose comments would look like headings."""
    return re.sub(r"^```.*?^```\n", "", text, flags=re.DOTALL | re.MULTILINE)


def named(text: str) -> list[str]:
    """Return what stands between backticks."""
    return re.findall(r"`([^`]+)`", text)
