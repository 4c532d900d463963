"""What README prints exists: commands, targets, settings, addresses, files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.__main__ import main
from app.store.feed import Feed
from app.upstream.api import Twilio
from app.web import create_app, webhook
from config.settings import NAMES

README = Path("README.md").read_text()


def test_every_setting_is_described_in_readme_and_in_the_example():
    example = Path("config/example.env").read_text()
    for name in NAMES:
        assert f"`{name}`" in README, name
        assert re.search(rf"^{name}=", example, re.M), name


def test_every_offhook_command_that_is_shown_exists_and_every_command_is_shown():
    shown = set(re.findall(r"offhook (run|[a-z]+)(?= --| \"|`| \[|\n| ROOM)", README))
    assert shown == set(main.commands)


def test_every_make_target_that_is_shown_exists():
    targets = set(re.findall(r"^([a-z]+):", Path("Makefile").read_text(), re.M))
    shown = set(re.findall(r"^make ([a-z]+)", README, re.M))
    assert shown
    assert shown <= targets


def test_every_file_that_is_linked_exists():
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert Path(link).exists(), link


def test_every_address_that_is_described_is_served_and_the_other_way_round(inbox, snapshots):
    app = create_app(
        inbox=inbox,
        snapshots=snapshots,
        feed=Feed(inbox.redis, inbox.shards),
        nudge=lambda: None,
        keys={},
        parents={},
        api_keys={},
        public_url=None,
        twilio=Twilio("http://127.0.0.1:1", {}),
    )
    served = {re.sub(r"<[^>]+>", "{sid}", rule.rule) for rule in app.url_map.iter_rules()}
    served = {path for path in served if not path.startswith(("/2010-04-01/", "/v1/"))}  # docs/openapi describes those
    served.add(webhook.PATH)  # ahead of Flask, which has no rule for it
    table = README[README.index("## Read\n") : README.index("<details>")]
    described = set(
        re.findall(
            r"(/(?:api|conferences|webhooks|healthz|readyz|metrics|sign-in|session)[a-z/{}]*|(?<=\| `)/(?=`))", table
        )
    )
    described -= {"/api/", "/conferences"}
    assert {path for path in served if "static" not in path} - {"/openapi.json"} == described - {"/openapi.json"}


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_has_help(name):
    assert main.commands[name].help
