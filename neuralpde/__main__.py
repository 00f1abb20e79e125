"""python -m neuralpde."""

import sys

from neuralpde.cli import main

sys.exit(main())
