"""``python -m mlferry.cli``."""

import sys

from mlferry.cli import main

sys.exit(main())
