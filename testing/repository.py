"""Where the repository is, for tests that look at its files."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
