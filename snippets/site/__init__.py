"""The machinery: read a page, run it, record it, check the rules."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
