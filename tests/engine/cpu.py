"""Defines pytest parameters that depend on the machine's CPU."""

import pytest

from engine.precision import cpu_multiplies_in

BFLOAT16 = pytest.param(
    "bfloat16",
    marks=pytest.mark.skipif(
        not cpu_multiplies_in("bfloat16"), reason="this CPU has no products in bfloat16"
    ),
)
