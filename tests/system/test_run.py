"""`offhook run` as its users meet it: it starts, says so, survives the death of its parts, leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest

from app.simulator.sender import Sender
from app.store import keys
from tests.cast import ACCOUNT, ANNA, ROOM, TOKEN, said
from tests.system.house import House, alive, awaited, descendants, free_port


def send(house: House, **more: str) -> int:
    sender = Sender(f"{house.url}/webhooks/twilio", house.environ["TWILIO_AUTH_TOKEN"])
    return sender.send(said("participant-join", ANNA, number=1, second=0) | more)


def test_the_demo_shows_live_conferences_and_its_printed_commands_work_as_printed(open_house, tmp_path):
    house = open_house("--demo", "--lose", "0.1", TWILIO_ACCOUNT_SID="", TWILIO_AUTH_TOKEN="").ready()
    greeting = awaited("a greeting", lambda: (m := re.search(r"look .*Ctrl-C", house.log.read_text(), re.S)) and m[0])
    ask = re.search(r"ask +(curl .*)", greeting).group(1)
    follow = re.search(r"follow +(.*)", greeting).group(1)

    def live() -> list[dict[str, object]]:
        answer = subprocess.run(shlex.split(ask), capture_output=True, text=True, timeout=10)
        return json.loads(answer.stdout)["conferences"]

    assert awaited("a live conference", lambda: [each for each in live() if each["status"] == "in-progress"])
    awaited("one that lacks something", lambda: [each for each in live() if each["coverage"]["missing"]])
    environ = {**house.environ, "TWILIO_ACCOUNT_SID": "", "TWILIO_AUTH_TOKEN": ""}
    tail = subprocess.Popen(
        ["sh", "-c", follow],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # the shell may start a process of its own for the command
    )
    assert b"here" in tail.stdout.readline()
    os.killpg(tail.pid, signal.SIGTERM)
    tail.wait()
    tail.stdout.close()

    look = re.search(r"look +(\S+)", greeting).group(1)
    another = re.search(r"for another: (.*)", greeting).group(1)
    printed = subprocess.run(["sh", "-c", another], env=environ, capture_output=True, text=True, timeout=60)
    assert printed.stdout.startswith(f"{house.url}/sign-in#")
    for link in (look, printed.stdout.strip()):
        assert [opened_by(house, link), opened_by(house, link)] == [204, 401]


def opened_by(house: House, link: str) -> int:
    """What a browser is answered that has opened a link and sends what is behind its #."""
    page, _, ticket = link.partition("#")
    assert page == f"{house.url}/sign-in"
    with urllib.request.urlopen(page, timeout=10) as answer:
        assert b"sign-in.js" in answer.read()
    request = urllib.request.Request(f"{house.url}/session", json.dumps({"ticket": ticket}).encode())
    request.add_header("Content-Type", "application/json")
    request.add_header("Origin", house.url)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except HTTPError as refusal:
        with refusal:
            return refusal.code


def test_a_link_signs_in_with_what_shows_the_most(open_house):
    house = open_house(OFFHOOK_API_KEYS="reads:0123456789abcdef:read,steers:fedcba9876543210:control").ready()
    link = awaited("a greeting", lambda: re.search(r"look +(\S+)", house.log.read_text())).group(1)
    assert opened_by(house, link) == 204
    house.environ["OFFHOOK_API_KEYS"] = ""
    own = house.command("link", "--url", f"{house.url}/").stdout.strip()
    assert opened_by(house, own) == 204
    house.environ |= {"TWILIO_AUTH_TOKEN": "replaced-since", "PUBLIC_URL": house.url}
    assert opened_by(house, house.command("link").stdout.strip()) == 401
    house.environ |= {"TWILIO_ACCOUNT_SID": "", "TWILIO_AUTH_TOKEN": ""}
    nobody = house.command("link")
    assert nobody.returncode == 1
    assert "OFFHOOK_API_KEYS" in nobody.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_and_the_next_start_has_the_state_back(open_house, number):
    house = open_house().ready()
    assert send(house) == 204
    awaited("the conference", lambda: house.get(f"/api/conferences/{ROOM}"))
    family = descendants(house.process.pid)
    assert house.stop(number) == 0
    assert not [pid for pid in family if alive(pid)]
    again = open_house().ready()
    assert again.get(f"/api/conferences/{ROOM}")["participants"][0]["call_sid"] == ANNA
    assert again.stop() == 0


def test_killing_the_supervisor_takes_everything_with_it(open_house):
    house = open_house().ready()
    family = descendants(house.process.pid)
    house.process.kill()
    awaited("the end of its processes", lambda: not [pid for pid in family if alive(pid)])


@pytest.mark.parametrize("kind", ["valkey", "worker", "web"])
def test_a_process_that_dies_is_started_again_and_callbacks_flow(open_house, kind):
    house = open_house(WEB_CONCURRENCY="1").ready()
    before = house.processes()[kind]
    os.kill(before[0], signal.SIGKILL)
    awaited(f"another {kind}", lambda: set(house.processes()[kind]) - set(before))
    awaited("a stored callback", lambda: send(house) == 204)
    awaited("its effect", lambda: house.get(f"/api/conferences/{ROOM}"))


def refused(*arguments: str, **environ: str) -> str:
    """What `offhook run` says when it does not start."""
    words = [sys.executable, "-m", "app", *arguments]
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    ended = subprocess.run(words, env={**clean, **environ}, capture_output=True, text=True, timeout=60)
    assert ended.returncode not in (0, None)
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_a_taken_port_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = refused("run", "--demo", PORT=str(port), OFFHOOK_DATA_DIR=str(tmp_path))
    assert f"127.0.0.1:{port}" in error
    assert "Set PORT" in error


def test_without_an_account_it_says_what_to_set(tmp_path):
    assert "TWILIO_ACCOUNT_SID" in refused("run", OFFHOOK_DATA_DIR=str(tmp_path))


def test_a_redis_that_is_not_there_is_named(tmp_path, open_house):
    error = refused("run", "--demo", OFFHOOK_DATA_DIR=str(tmp_path), REDIS_URL="redis://127.0.0.1:1/0")
    assert "REDIS_URL" in error


def test_a_redis_that_keeps_nothing_is_refused_unless_that_is_asked_for(tmp_path, serve, open_house):
    server = serve(appendonly="no", maxmemory_policy="allkeys-lru")
    error = refused("run", "--demo", OFFHOOK_DATA_DIR=str(tmp_path / "data"), REDIS_URL=server.url)
    for words in ("OFFHOOK_DURABILITY=everysec", "set appendonly yes", "set maxmemory-policy noeviction"):
        assert words in error
    assert "OFFHOOK_DURABILITY=memory takes any Redis" in error
    house = open_house(REDIS_URL=server.url, OFFHOOK_DURABILITY="memory").ready()
    assert send(house) == 204
    assert house.stop() == 0


def test_the_embedded_valkey_has_no_replica_to_wait_for(tmp_path):
    error = refused("run", "--demo", OFFHOOK_DATA_DIR=str(tmp_path), OFFHOOK_DURABILITY="replica")
    assert "OFFHOOK_DURABILITY is replica" in error
    assert "Set REDIS_URL" in error


def test_processes_by_themselves_complain_once_of_their_redis_and_run_on(tmp_path, serve):
    server = serve(appendonly="no")
    port, token = free_port(), TOKEN.replace(" ", "-")
    environ = {
        "PATH": os.environ["PATH"],
        "REDIS_URL": server.url,
        "PORT": str(port),
        "WEB_CONCURRENCY": "2",
        "TWILIO_ACCOUNT_SID": ACCOUNT,
        "TWILIO_AUTH_TOKEN": token,
    }
    logs = {kind: tmp_path / f"{kind}.log" for kind in ("web", "worker")}
    running = []
    for kind, log in logs.items():
        with log.open("wb") as file:
            running.append(subprocess.Popen([sys.executable, "-m", "app", kind], env=environ, stderr=file))
    try:
        sender = Sender(f"http://127.0.0.1:{port}/webhooks/twilio", token)
        told = said("participant-join", ANNA, number=1, second=0)
        awaited("a stored callback", lambda: sender.send(told) == 204)
        awaited("its effect", lambda: server.client().exists(keys.conference(keys.shard_of(ROOM, 16), ROOM)))
        with pytest.raises(HTTPError) as red:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10)
        with red.value as answer:
            assert answer.status == 503
            assert b"set appendonly yes" in answer.read()
    finally:
        for process in running:
            process.terminate()
        ended = [process.wait(30) for process in running]
    assert ended == [0, 0]
    for log in logs.values():
        [complaint] = [json.loads(line) for line in log.read_text().splitlines() if '"wrong"' in line]
        assert (complaint["level"], complaint["asked"]) == ("error", "everysec")
        assert complaint["wrong"] == ["Redis keeps no append-only file: set appendonly yes."]


def test_a_wrong_setting_stops_the_start_and_is_named(tmp_path):
    error = refused("run", "--demo", OFFHOOK_DATA_DIR=str(tmp_path), OFFHOOK_SHARDS="many", OFFHOOK_SHARD="4")
    assert "OFFHOOK_SHARDS" in error
    assert "OFFHOOK_SHARD:" in error


@pytest.mark.parametrize("command", ["web", "worker"])
def test_a_process_by_itself_needs_to_be_told_its_redis(command):
    assert "REDIS_URL" in refused(command)


def test_two_on_one_data_directory_are_refused(open_house, tmp_path):
    house = open_house().ready()
    error = refused("run", "--demo", OFFHOOK_DATA_DIR=house.environ["OFFHOOK_DATA_DIR"])
    assert "Another Offhook is running" in error


def test_another_number_of_shards_is_refused_with_the_right_one(open_house):
    house = open_house().ready()
    assert send(house) == 204
    assert house.stop() == 0
    other = open_house(OFFHOOK_SHARDS="4")
    assert other.process.wait(30) == 1
    assert "Set OFFHOOK_SHARDS=16" in other.log.read_text()


def test_the_procfile_starts_a_whole_offhook_on_a_redis_of_ones_own(redis, valkey, tmp_path):
    lines = Path("Procfile").read_text().splitlines()
    port, token = free_port(), TOKEN.replace(" ", "-")
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "REDIS_URL": valkey,
        "PORT": str(port),
        "TWILIO_ACCOUNT_SID": ACCOUNT,
        "TWILIO_AUTH_TOKEN": token,
        "OFFHOOK_DATA_DIR": str(tmp_path),
    }
    commands = [line.partition(": ")[2] for line in lines]
    running = [subprocess.Popen(shlex.split(command), env=environ) for command in commands]
    try:
        sender = Sender(f"http://127.0.0.1:{port}/webhooks/twilio", token)
        told = said("participant-join", ANNA, number=1, second=0)
        awaited("a stored callback", lambda: sender.send(told) == 204)
        awaited("its effect", lambda: redis.exists(keys.conference(keys.shard_of(ROOM, 16), ROOM)))
    finally:
        for process in running:
            process.terminate()
        ended = [process.wait(30) for process in running]
    assert ended == [0, 0]
