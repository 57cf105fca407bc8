"""``python -m scaleport`` is the command line."""

from __future__ import annotations

import sys

from scaleport.cli.main import main

sys.exit(main())
