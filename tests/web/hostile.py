"""What the tests of hostile requests share: how many there are to be, and words that nobody should be hurt by."""

from __future__ import annotations

import os

CASES = int(os.environ.get("CASES", "2000"))
"""More of them: CASES=100000 pytest tests/web/test_forgery.py tests/web/test_fuzz.py"""
