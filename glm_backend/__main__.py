"""`python -m glm_backend`."""

import sys

from glm_backend.cli import main

sys.exit(main())
