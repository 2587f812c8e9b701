"""``python -m mlferry``."""

import sys

from mlferry.cli import main

sys.exit(main())
