"""Provides the renderer of music, or skips the tests if it is not installed."""

from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def fluid() -> ModuleType:
    """The module that renders with fluidsynth."""
    reason = "Debian's libfluidsynth3 and fluid-soundfont-gm are not installed"
    pytest.importorskip("fluidsynth", reason=reason, exc_type=ImportError)
    from bundles.tiny.data import fluid

    if not Path(fluid.SOUNDFONT).exists():
        pytest.skip(reason)
    return fluid
