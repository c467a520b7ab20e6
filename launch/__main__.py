"""`python -m launch CONFIG`: what `make serve` runs."""

import sys

from launch.start import main

sys.exit(main())
