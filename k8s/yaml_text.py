"""YAML as people write it: in the order given, long texts as blocks."""

from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dump(data: Any) -> str:
    """Return one document."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=100)


def dump_all(documents: list[Any]) -> str:
    """Return several documents."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=100)
