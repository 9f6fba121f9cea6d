"""Rebuilds llmkit/models/models.json: python tools/build_registry.py [--sources DIR] [--check]."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.registry.build import main

if __name__ == "__main__":
    sys.exit(main())
