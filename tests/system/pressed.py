"""The web process as gunicorn loads it, which takes itself to be behind: speech is turned away, all else is taken."""

from __future__ import annotations

from app.admission import SPEECH, Admission
from app.wsgi import main

__all__ = ["main"]

Admission.calm = property(lambda _: False)  # type: ignore[assignment, method-assign]
Admission.refuses = lambda _, request: SPEECH in request  # type: ignore[method-assign]
