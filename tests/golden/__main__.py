"""Writes the golden file of today's version: `python -m tests.golden 3`, and adds stories to one that is there."""

from __future__ import annotations

import sys

from app import fold
from app.twilio.callbacks import read_filed
from tests.golden import golden, lines_of, path_of, refolded, versions
from tests.golden.stories import STORIES


def main(word: str) -> str:
    """Write or add; what was done. Nothing that is in a file is ever changed."""
    version = int(word)
    if version != fold.VERSION:
        return f"This build folds as version {fold.VERSION}: no other can be written with it."
    there = {story.name for story in golden(version)} if version in versions() else set()
    told = {
        story.name: (story.sid, story.log) for earlier in versions() if earlier <= version for story in golden(earlier)
    }
    for story in STORIES:
        if story.since <= version and story.name not in told:
            told[story.name] = story.sid, [(read_filed(each, story.sid).id, each) for each in story.log()]
    missing = {name: each for name, each in told.items() if name not in there}
    if not missing:
        return f"{path_of(version).name} is there, and has every story. It is never overwritten."
    with path_of(version).open("ab") as file:
        for name, (sid, log) in missing.items():
            file.writelines(line + b"\n" for line in lines_of(refolded(name, sid, log)))
    return f"{path_of(version).name}: {len(missing)} stories added."


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
