"""Runs the launcher for `make serve`: `python -m launch CONFIG`."""

import sys

from launch.start import main

sys.exit(main())
