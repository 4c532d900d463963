"""Twilio's identifiers: two capital letters and 32 hexadecimal digits (Twilio docs, String Identifier)."""

import re

_PATTERNS = {kind: re.compile(f"{kind}[0-9a-fA-F]{{32}}", re.ASCII) for kind in ("AC", "CA", "CF", "NO", "RE")}


def is_sid(kind: str, text: str) -> bool:
    """Whether `text` is wholly a SID of this kind: AC account, CA call, CF conference, NO alert, RE recording."""
    return _PATTERNS[kind].fullmatch(text) is not None
