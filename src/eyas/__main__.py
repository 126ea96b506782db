"""`python -m eyas` is the command `eyas`."""

from __future__ import annotations

import sys

from eyas.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
