"""What past folds have made of some stories, today's makes again from their logs; and it makes what it is known for."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from shutil import copy

import pytest

from app.fold import VERSION
from tests import golden
from tests.golden import Golden, __main__, determined, events_of, form, refolded
from tests.golden.stories import STORIES

EACH = [pytest.param(story, id=f"{n}-{story.name}") for n in golden.versions() for story in golden.golden(n)]
NEWEST = {story.name: story for story in golden.golden(golden.versions()[-1])}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the golden files, to which they may be written."""
    for path in golden.FOLDER.glob("*.jsonl"):
        copy(path, tmp_path)
    monkeypatch.setattr(golden, "FOLDER", tmp_path)
    monkeypatch.setattr(form, "FOLDER", tmp_path)
    return tmp_path


def told_in(stories: Iterable[Golden]) -> dict[str, object]:
    """The logs and documents of some stories, by name."""
    return {story.name: (story.sid, story.log, determined(story)) for story in stories}


def test_every_version_of_the_fold_has_a_file_and_so_has_todays() -> None:
    missing = f"write it with `python -m tests.golden {VERSION}`"
    assert golden.versions() == list(range(1, VERSION + 1)), missing


@pytest.mark.parametrize("story", EACH)
def test_the_log_of_every_version_folds_to_what_the_newest_file_says(story: Golden) -> None:
    changed = "documents in Redis would differ from their logs: raise fold.VERSION, and write the file of the new one"
    assert determined(refolded(story.name, story.sid, story.log)) == determined(NEWEST[story.name]), changed


@pytest.mark.parametrize("story", EACH)
def test_an_event_has_the_id_that_it_was_stored_under(story: Golden) -> None:
    """By that id a repeat is known: under another one it would count twice."""
    read = list(events_of(story.sid, story.log))
    assert [(event_id, event.id) for event_id, event in read] == [(event_id, event_id) for event_id, _ in read]
    assert len({event_id for event_id, _ in story.log}) == len(story.log)


def test_a_story_is_in_the_file_of_every_later_version_with_the_same_log() -> None:
    for earlier, later in pairwise(golden.versions()):
        told = {story.name: (story.sid, story.log) for story in golden.golden(later)}
        for story in golden.golden(earlier):
            assert told[story.name] == (story.sid, story.log)


def test_every_story_that_was_thought_of_is_in_the_newest_file() -> None:
    thought_of = {story.name for story in STORIES if story.since <= VERSION}
    assert thought_of <= NEWEST.keys(), f"add them with `python -m tests.golden {VERSION}`"


def test_a_story_is_written_as_it_was_read_byte_for_byte(folder: Path) -> None:
    for version in golden.versions():
        stories = golden.golden(version)
        lines = golden.path_of(version).read_bytes().splitlines()
        documents = [line for line in lines if line.startswith((b'{"header"', b'{"participant"'))]
        again = [line for story in stories for line in golden.lines_of(story)]
        assert [line for line in again if line.startswith((b'{"header"', b'{"participant"'))] == documents
        golden.path_of(version).write_bytes(b"\n".join(again))
        assert golden.golden(version) == stories


def test_a_file_that_is_there_is_never_overwritten(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert "never overwritten" in __main__.main(str(VERSION))
    assert "never overwritten" in form.main()
    assert "no other" in __main__.main("1")
    assert "no other" in __main__.main(str(VERSION + 1))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_stories_that_are_missing_in_a_file_are_added_behind_those_that_are_there(folder: Path) -> None:
    path = golden.path_of(VERSION)
    whole = path.read_bytes()
    half = whole[: whole.index(b'{"story"', len(whole) // 2)]
    path.write_bytes(half)
    assert "stories added" in __main__.main(str(VERSION))
    assert path.read_bytes().startswith(half)
    assert told_in(golden.golden(VERSION)) == told_in(NEWEST.values())


def test_a_version_that_has_no_file_gets_all_stories(folder: Path) -> None:
    golden.path_of(VERSION).unlink()
    __main__.main(str(VERSION))
    assert told_in(golden.golden(VERSION)) == told_in(NEWEST.values())
