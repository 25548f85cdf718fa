"""`python -m stoker`: the same as `stoker`."""

import sys

from stoker.cli import main

sys.exit(main())
