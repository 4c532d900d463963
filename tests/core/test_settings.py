"""Settings: what an operator writes is read as meant, or refused in words that name it and show no secret."""

from __future__ import annotations

import os
import traceback
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.alerts import TEXTS, Kind, Rule, text_of
from app.twilio.signature import Key
from config.settings import NAMES, SettingsError, from_env

MAIN = "AC" + "0" * 26 + "aaaaaa"
SUB = "AC" + "1" * 26 + "bbbbbb"
OTHER = "AC" + "2" * 26 + "cccccc"
TOKEN = "0123456789abcdef0123456789abcdef"
CONFIG = Path(__file__).parents[2] / "config"

WriteFile = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> WriteFile:
    """Write a file and get its path."""

    def write_file(text: str) -> str:
        path = tmp_path / "file"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write_file


@pytest.fixture
def accounts(write: WriteFile) -> Callable[[str], dict[str, str]]:
    """An environment that holds the main account and names an accounts file of this text."""
    return lambda text: {
        "TWILIO_ACCOUNT_SID": MAIN,
        "TWILIO_AUTH_TOKEN": "main-token",
        "OFFHOOK_ACCOUNTS_FILE": write(text),
    }


Accounts = Callable[[str], dict[str, str]]


def problems(environ: dict[str, str]) -> list[str]:
    """What is said of settings that are refused, line by line."""
    with pytest.raises(SettingsError) as caught:
        from_env(environ)
    return str(caught.value).splitlines()


def only_problem(environ: dict[str, str]) -> str:
    [problem] = problems(environ)
    return problem


def secrets(keys: tuple[Key, ...]) -> list[bytes]:
    return [key.secret for key in keys]


# Defaults and the shipped examples


def test_everything_has_a_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = from_env({})
    assert settings.accounts == {}
    assert settings.public_url is None
    assert settings.redis_url is None
    assert settings.rq_redis_url is None
    assert settings.durability == "everysec"
    assert settings.database_url is None
    assert settings.data_dir == tmp_path / ".offhook"
    assert settings.api_keys == ()
    assert settings.shards == 16
    assert settings.port == 8000
    assert settings.twilio_api_base_url == "https://api.twilio.com"
    assert settings.log_level == "info"


@pytest.mark.parametrize(("cores", "processes"), [(1, 1), (3, 3), (64, 4)])
def test_web_processes_follow_the_usable_cores_up_to_four(
    cores: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert from_env({}).web_concurrency == processes


def test_where_affinity_is_unknown_all_cores_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert from_env({}).web_concurrency == 2


def test_an_empty_variable_counts_as_unset() -> None:
    assert from_env(dict.fromkeys((*NAMES, "OFFHOOK_NO_SUCH_NAME"), "")) == from_env({})


def test_the_example_environment_holds_every_setting_and_its_default() -> None:
    lines = (CONFIG / "example.env").read_text(encoding="utf-8").split("\n\n")[1].splitlines()
    assert all(comment.startswith("# ") for comment in lines[::2])
    environ = dict(line.split("=", 1) for line in lines[1::2])
    assert tuple(environ) == NAMES
    assert from_env(environ) == from_env({})


def test_the_example_of_an_accounts_file_is_refused_until_it_is_filled_in(accounts: Accounts) -> None:
    text = (CONFIG / "accounts.example.toml").read_text(encoding="utf-8")
    assert len(problems(accounts(text))) == text.count("[[account]]\n")
    filled_in = {
        '"<account sid>"': f'"{OTHER}"',
        '"<subaccount sid>"': f'"{SUB}"',
        '"<main account sid>"': f'"{MAIN}"',
        "<new Auth Token>": "new",
        "<old Auth Token>": "old",
        "<its Auth Token>": "subaccount",
        "<shared key id>": "MK1",
        "<its secret>": "shared",
    }
    for blank, value in filled_in.items():
        text = text.replace(blank, value)
    settings = from_env(accounts(text))
    assert secrets(settings.accounts[MAIN].keys) == [b"main-token", b"shared"]
    assert secrets(settings.accounts[SUB].keys) == [b"subaccount", b"new", b"old"]


# The main account


def test_the_main_account_is_its_sid_and_token() -> None:
    [account] = from_env({"TWILIO_ACCOUNT_SID": MAIN, "TWILIO_AUTH_TOKEN": TOKEN}).accounts.values()
    assert (account.sid, account.parent) == (MAIN, None)
    assert account.keys == (Key(name="main", secret=TOKEN.encode()),)


def test_several_tokens_are_all_keys_in_the_order_written() -> None:
    settings = from_env({"TWILIO_ACCOUNT_SID": MAIN, "TWILIO_AUTH_TOKEN": "new, old,oldest"})
    keys = settings.accounts[MAIN].keys
    assert [(key.name, key.secret) for key in keys] == [
        ("main", b"new"),
        ("main-2", b"old"),
        ("main-3", b"oldest"),
    ]


@pytest.mark.parametrize(
    "sid",
    [
        "AC123",
        "AC" + "g" * 32,
        "CA" + "0" * 32,
        "AC" + "\N{FULLWIDTH DIGIT ONE}" * 32,
        f"{MAIN}0",
        f"{MAIN}\n",
        f" {MAIN}",
    ],
)
def test_what_is_no_account_sid_is_refused(sid: str) -> None:
    problem = only_problem({"TWILIO_ACCOUNT_SID": sid, "TWILIO_AUTH_TOKEN": TOKEN})
    assert problem.startswith("TWILIO_ACCOUNT_SID: ")
    assert "AC and 32 hexadecimal digits" in problem


def test_a_sid_without_token_is_refused() -> None:
    assert only_problem({"TWILIO_ACCOUNT_SID": MAIN}).startswith("TWILIO_AUTH_TOKEN: not set")


def test_a_token_without_sid_is_refused() -> None:
    assert only_problem({"TWILIO_AUTH_TOKEN": TOKEN}).startswith("TWILIO_ACCOUNT_SID: not set")


@pytest.mark.parametrize("token", [",", "new,", "new,,old", " ", "with space", "line\nbreak", "é", "\udcff"])
def test_a_token_that_is_empty_or_not_plain_is_refused(token: str) -> None:
    lines = problems({"TWILIO_ACCOUNT_SID": MAIN, "TWILIO_AUTH_TOKEN": token})
    assert all(line.startswith("TWILIO_AUTH_TOKEN: token ") for line in lines)


# Secrets in files


def test_a_secret_may_come_from_a_file(write: WriteFile) -> None:
    settings = from_env({"TWILIO_ACCOUNT_SID": MAIN, "TWILIO_AUTH_TOKEN_FILE": write("new,old\r\n")})
    assert secrets(settings.accounts[MAIN].keys) == [b"new", b"old"]
    settings = from_env({"OFFHOOK_API_KEYS_FILE": write(f"bob:{TOKEN}:read\n")})
    assert [key.name for key in settings.api_keys] == ["bob"]


@pytest.mark.parametrize("name", ["TWILIO_AUTH_TOKEN", "OFFHOOK_API_KEYS"])
def test_a_secret_given_twice_is_refused(name: str, write: WriteFile) -> None:
    secret = f"bob:{TOKEN}:read"
    main = {"TWILIO_ACCOUNT_SID": MAIN, "TWILIO_AUTH_TOKEN": "x"}
    problem = only_problem(main | {name: secret, f"{name}_FILE": write(secret)})
    assert problem == f"{name}_FILE: {name} is set as well; expected only one of the two"


def test_an_empty_secret_file_is_refused(write: WriteFile) -> None:
    problem = only_problem({"TWILIO_ACCOUNT_SID": MAIN, "TWILIO_AUTH_TOKEN_FILE": write("\n")})
    assert problem.startswith("TWILIO_AUTH_TOKEN_FILE: the file it names is empty")


def test_an_unreadable_file_is_refused_and_its_name_not_repeated(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for path in (f"/nowhere/{TOKEN}", str(tmp_path), str(binary), "nul\0"):
        for name in ("OFFHOOK_API_KEYS_FILE", "OFFHOOK_ACCOUNTS_FILE"):
            problem = only_problem({name: path})
            assert problem.startswith(f"{name}: cannot read the file it names (")
            assert path not in problem


# The accounts file


def test_an_account_is_its_tokens_and_shared_keys(accounts: Accounts) -> None:
    text = f'''
        [[account]]
        sid = "{OTHER}"
        tokens = ["new", "old"]
        shared_keys = [{{ id = "MK1", secret = "one" }}, {{ id = "MK2", secret = "two" }}]
    '''
    settings = from_env(accounts(text))
    assert list(settings.accounts) == [MAIN, OTHER]
    assert settings.accounts[OTHER].keys == (
        Key(name="cccccc", secret=b"new"),
        Key(name="cccccc-2", secret=b"old"),
        Key(name="shared:MK1", secret=b"one", algorithm="sha256", key_id="MK1"),
        Key(name="shared:MK2", secret=b"two", algorithm="sha256", key_id="MK2"),
    )


def test_an_entry_of_the_main_account_adds_keys_to_it(accounts: Accounts) -> None:
    text = f'''
        [[account]]
        sid = "{MAIN}"
        tokens = ["another"]
        shared_keys = [{{ id = "MK1", secret = "one" }}]
    '''
    [account] = from_env(accounts(text)).accounts.values()
    assert [key.name for key in account.keys] == ["main", "aaaaaa", "shared:MK1"]


def test_a_parents_keys_come_behind_an_accounts_own(accounts: Accounts) -> None:
    text = f'''
        [[account]]
        sid = "{SUB}"
        tokens = ["own"]
        parent = "{MAIN}"
        [[account]]
        sid = "{MAIN}"
        tokens = ["another"]
    '''
    settings = from_env(accounts(text))
    assert settings.accounts[SUB].parent == MAIN
    assert secrets(settings.accounts[SUB].keys) == [b"own", b"main-token", b"another"]
    assert secrets(settings.accounts[MAIN].keys) == [b"main-token", b"another"]


def test_a_subaccount_may_rely_on_its_parents_keys_alone(accounts: Accounts) -> None:
    settings = from_env(accounts(f'[[account]]\nsid = "{SUB}"\nparent = "{MAIN}"'))
    assert secrets(settings.accounts[SUB].keys) == [b"main-token"]


def test_accounts_need_no_main_account(write: WriteFile) -> None:
    text = f'[[account]]\nsid = "{OTHER}"\ntokens = ["x"]'
    assert list(from_env({"OFFHOOK_ACCOUNTS_FILE": write(text)}).accounts) == [OTHER]


def test_twilio_is_asked_with_an_accounts_newest_token_or_else_its_parents(accounts: Accounts) -> None:
    environ = accounts(
        f"""
        [[account]]
        sid = "{SUB}"
        parent = "{MAIN}"

        [[account]]
        sid = "{OTHER}"
        tokens = ["new", "old"]
        """
    )
    found = from_env(environ).accounts
    logins = {sid: account.login and (account.login[0], account.login[1].secret) for sid, account in found.items()}
    token = found[MAIN].keys[0].secret
    assert logins == {MAIN: (MAIN, token), SUB: (MAIN, token), OTHER: (OTHER, b"new")}


def test_an_account_of_shared_keys_alone_cannot_be_asked_for_at_twilio(accounts: Accounts) -> None:
    environ = accounts(
        f"""
        [[account]]
        sid = "{OTHER}"
        shared_keys = [{{id = "MK1", secret = "shared"}}]
        """
    )
    assert from_env(environ).accounts[OTHER].login is None


def test_an_account_without_any_key_is_refused(accounts: Accounts) -> None:
    problem = only_problem(accounts(f'[[account]]\nsid = "{OTHER}"'))
    assert problem.startswith("OFFHOOK_ACCOUNTS_FILE, account 1: no key")


def test_a_parent_that_is_nowhere_listed_is_refused(accounts: Accounts) -> None:
    problem = only_problem(accounts(f'[[account]]\nsid = "{SUB}"\ntokens = ["x"]\nparent = "{OTHER}"'))
    assert problem.startswith("OFFHOOK_ACCOUNTS_FILE, account 1, parent: no such account")


def test_parents_in_a_chain_or_ring_are_refused(accounts: Accounts) -> None:
    itself = f'[[account]]\nsid = "{SUB}"\nparent = "{SUB}"'
    assert "has a parent itself" in only_problem(accounts(itself))
    chain = f"""
        [[account]]
        sid = "{SUB}"
        parent = "{MAIN}"
        [[account]]
        sid = "{OTHER}"
        parent = "{SUB}"
    """
    assert only_problem(accounts(chain)).startswith("OFFHOOK_ACCOUNTS_FILE, account 2, parent: ")


def test_an_account_with_two_entries_is_refused(accounts: Accounts) -> None:
    entry = f'[[account]]\nsid = "{OTHER}"\ntokens = ["x"]\n'
    problem = only_problem(accounts(entry * 2))
    assert problem.startswith("OFFHOOK_ACCOUNTS_FILE, account 2: this sid has an entry already")


@pytest.mark.parametrize(
    ("text", "place", "wrong"),
    [
        (f'accounts = "{TOKEN}"', "", "unknown field `accounts`"),
        (f'[[account]]\nsid = "{OTHER}"\ntoken = "{TOKEN}"', ", account 1", "unknown field `token`"),
        (
            f'[[account]]\nsid = "{OTHER}"\nshared_keys = [{{ id = "MK1", key = "{TOKEN}" }}]',
            ", account 1",
            "unknown field `key`",
        ),
        (f'[[account]]\ntokens = ["{TOKEN}"]', ", account 1", "missing required field `sid`"),
        (f'[[account]]\nsid = "{OTHER}"\ntokens = "{TOKEN}"', ", account 1", "Expected `array`"),
        (f'[[account]]\nsid = "{TOKEN}"\ntokens = ["x"]', ", account 1, sid", "not an account sid"),
        (f'[[account]]\nsid = "{OTHER}"\ntokens = ["x", ""]', ", account 1, tokens", "token 2 is empty"),
        (f"[[account]]\nsid = {TOKEN}", "", "not TOML (at line 2, column"),
        (f'[account]\nsid = "{OTHER}"', "", "Expected `array`"),
        (f"account = 1{'0' * 5000}", "", "not TOML"),
    ],
)
def test_a_faulty_accounts_file_is_refused_at_the_faulty_place(
    text: str, place: str, wrong: str, accounts: Accounts
) -> None:
    problem = only_problem(accounts(text))
    assert problem.startswith(f"OFFHOOK_ACCOUNTS_FILE{place}: ")
    assert wrong in problem
    assert TOKEN not in problem


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ('id = "", secret = "x"', "id"),
        ('id = "MK1,algorithm=", secret = "x"', "id"),
        ('id = "MK1", secret = ""', "secret"),
        ('id = "MK1", secret = "<its secret>"', "secret"),
    ],
)
def test_a_faulty_shared_key_is_refused(key: str, part: str, accounts: Accounts) -> None:
    problem = only_problem(accounts(f'[[account]]\nsid = "{OTHER}"\nshared_keys = [{{ {key} }}]'))
    assert problem.startswith(f"OFFHOOK_ACCOUNTS_FILE, account 1, shared key 1, {part}: ")


# API keys


def test_api_keys_are_name_secret_and_scope() -> None:
    settings = from_env({"OFFHOOK_API_KEYS": f"bob:{TOKEN}:read, desk_2:with:colons:{TOKEN}:control"})
    assert [(key.name, key.secret, key.scope) for key in settings.api_keys] == [
        ("bob", TOKEN.encode(), "read"),
        ("desk_2", f"with:colons:{TOKEN}".encode(), "control"),
    ]


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        (TOKEN, "scope"),
        ("", "name"),
        (f":{TOKEN}:read", "name"),
        (f"bob smith:{TOKEN}:read", "name"),
        (f"Jörg:{TOKEN}:read", "name"),
        (f"{MAIN}:{TOKEN}:read", "name"),
        (f"bob:{TOKEN}", "scope"),
        (f"bob:{TOKEN}:write", "scope"),
        (f"bob:{TOKEN}:READ", "scope"),
        ("bob:read", "secret"),
        ("bob::read", "secret"),
        ("bob:fifteen-chars-x:read", "secret"),
        (f"bob:{TOKEN} {TOKEN}:read", "secret"),
        (f"bob:{TOKEN}é:read", "secret"),
        (f"ann:{TOKEN}:read", "same name"),
    ],
)
def test_a_faulty_api_key_is_refused_by_its_number(entry: str, wrong: str) -> None:
    problem = only_problem({"OFFHOOK_API_KEYS": f"ann:{TOKEN}:read,{entry}"})
    assert problem.startswith("OFFHOOK_API_KEYS, key 2: ")
    assert wrong in problem


def test_a_secret_of_sixteen_characters_is_long_enough() -> None:
    [key] = from_env({"OFFHOOK_API_KEYS": "bob:sixteen-chars-xx:read"}).api_keys
    assert key.secret == b"sixteen-chars-xx"


# URLs


@pytest.mark.parametrize(
    ("given_url", "read"),
    [
        ("https://offhook.example.com", "https://offhook.example.com"),
        ("http://offhook.example.com:8080/", "http://offhook.example.com:8080"),
        ("https://user:pass@Offhook.Example.com/prefix/", "https://user:pass@Offhook.Example.com/prefix"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_a_web_url_is_kept_without_trailing_slash(given_url: str, read: str) -> None:
    settings = from_env({"PUBLIC_URL": given_url, "TWILIO_API_BASE_URL": given_url})
    assert (settings.public_url, settings.twilio_api_base_url) == (read, read)


@pytest.mark.parametrize("name", ["PUBLIC_URL", "TWILIO_API_BASE_URL"])
@pytest.mark.parametrize(
    "url",
    [
        "offhook.example.com",
        "ftp://example.com",
        "https://",
        "https:///path",
        "https://:443",
        "https://example.com:",
        "https://example.com:0",
        "https://example.com:port",
        "https://example.com:65536",
        "https://[::1",
        "https://example.com?",
        "https://example.com/?tenant=1",
        "https://example.com/#rc=5",
        "https://example.com/a b",
        "https://example.com\n",
        "https://exämple.com",
        "https://a\N{FULLWIDTH SOLIDUS}b.com",
    ],
)
def test_what_is_no_web_url_to_append_to_is_refused(name: str, url: str) -> None:
    assert only_problem({name: url}).startswith(f"{name}: not a URL that paths can be appended to")


@pytest.mark.parametrize(
    "url",
    ["redis://localhost", "redis://:pw@localhost:6379/0", "rediss://user:p%23w@h:1/2?socket_timeout=5", "redis://[::1]/",
     "unix:///run/valkey.sock?db=1"],
)  # fmt: skip
def test_a_redis_url_serves_state_and_queue(url: str) -> None:
    settings = from_env({"REDIS_URL": url})
    assert (settings.redis_url, settings.rq_redis_url) == (url, url)


def test_the_queue_may_have_a_redis_of_its_own() -> None:
    settings = from_env({"REDIS_URL": "redis://state", "RQ_REDIS_URL": "redis://queue"})
    assert (settings.redis_url, settings.rq_redis_url) == ("redis://state", "redis://queue")
    settings = from_env({"RQ_REDIS_URL": "redis://queue"})
    assert (settings.redis_url, settings.rq_redis_url) == (None, "redis://queue")


def test_an_api_key_may_be_for_one_account() -> None:
    main = {"TWILIO_ACCOUNT_SID": MAIN, "TWILIO_AUTH_TOKEN": TOKEN}
    [key] = from_env({**main, "OFFHOOK_API_KEYS": f"bob:with:{TOKEN}:control:{MAIN}"}).api_keys
    assert (key.secret, key.scope, key.account) == (f"with:{TOKEN}".encode(), "control", MAIN)
    problem = only_problem({**main, "OFFHOOK_API_KEYS": f"bob:{TOKEN}:control:{OTHER}"})
    assert problem.startswith("OFFHOOK_API_KEYS, key 1: its account is not configured")


@pytest.mark.parametrize("name", ["REDIS_URL", "RQ_REDIS_URL"])
@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://localhost",
        "redis://",
        "redis:///0",
        "redis://localhost/zero",
        "redis://localhost/1/2",
        "redis://localhost:port",
        "redis://localhost:65536",
        "redis://localhost?db=zero",
        "redis://:pass#word@localhost",
        "redis://local host",
        "unix://",
    ],
)
def test_what_is_no_redis_url_is_refused(name: str, url: str) -> None:
    assert only_problem({name: url}).startswith(f"{name}: not a usable Redis URL")


@pytest.mark.parametrize("scheme", ["redis+cluster", "redis+sentinel", "rediss+cluster", "rediss+sentinel"])
def test_cluster_and_sentinel_are_said_to_be_unsupported(scheme: str) -> None:
    problem = only_problem({"REDIS_URL": f"{scheme}://host:26379/mymaster"})
    assert problem.startswith("REDIS_URL: Redis Cluster and Sentinel are not supported yet")


@pytest.mark.parametrize("url", ["sqlite:////var/lib/offhook.db", "postgresql+psycopg://u:p@h/offhook"])
def test_a_database_url_is_of_sqlite_or_postgresql(url: str) -> None:
    assert from_env({"DATABASE_URL": url}).database_url == url


@pytest.mark.parametrize(
    "url", ["mysql://h/offhook", "postgres://h/offhook", "offhook.db", "sqlite://", "sqlite:///a b"]
)
def test_another_database_is_refused(url: str) -> None:
    assert only_problem({"DATABASE_URL": url}).startswith("DATABASE_URL: not a usable database URL")


# Numbers, paths, words


@pytest.mark.parametrize(("name", "most"), [("OFFHOOK_SHARDS", 256), ("PORT", 65535), ("WEB_CONCURRENCY", 64)])
def test_a_number_is_decimal_and_in_range(name: str, most: int) -> None:
    field = {"OFFHOOK_SHARDS": "shards", "PORT": "port", "WEB_CONCURRENCY": "web_concurrency"}[name]
    assert getattr(from_env({name: "1"}), field) == 1
    assert getattr(from_env({name: str(most)}), field) == most
    assert only_problem({name: str(most + 1)}).endswith(f"from 1 to {most}, digits only")


@pytest.mark.parametrize("name", ["OFFHOOK_SHARDS", "PORT", "WEB_CONCURRENCY"])
@pytest.mark.parametrize(
    "text",
    [
        "0",
        "65536",
        "-1",
        "+1",
        " 1",
        "1\n",
        "1.0",
        "0x1",
        "1_0",
        "ten",
        "\N{ARABIC-INDIC DIGIT ONE}",
        "9" * 5000,
    ],
)
def test_any_other_number_is_refused(name: str, text: str) -> None:
    problem = only_problem({name: text})
    assert problem.startswith(f"{name}: not a usable number; expected a whole number from 1 to ")


def test_the_data_directory_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert from_env({"OFFHOOK_DATA_DIR": "data"}).data_dir == tmp_path / "data"
    assert from_env({"OFFHOOK_DATA_DIR": "/var/lib/offhook"}).data_dir == Path("/var/lib/offhook")


def test_log_levels_are_four_words() -> None:
    for level in ("debug", "info", "warning", "error"):
        assert from_env({"OFFHOOK_LOG_LEVEL": level}).log_level == level
    assert "one of debug, info, warning, error" in only_problem({"OFFHOOK_LOG_LEVEL": "verbose"})


def test_durability_is_one_of_five_words() -> None:
    for mode in ("memory", "everysec", "always", "replica", "replica-always"):
        assert from_env({"OFFHOOK_DURABILITY": mode}).durability == mode
    for word in ("Always", "no", "fsync", "replica,always"):
        problem = only_problem({"OFFHOOK_DURABILITY": word})
        assert problem.endswith("expected one of memory, everysec, always, replica, replica-always")


def test_a_list_shows_all_conferences_unless_told_otherwise() -> None:
    assert from_env({}).list_status == "all"
    for status in ("all", "init", "in-progress", "completed"):
        assert from_env({"OFFHOOK_LIST_STATUS": status}).list_status == status
    assert "one of all, init, in-progress, completed" in only_problem({"OFFHOOK_LIST_STATUS": "live"})


def test_hosts_of_urls_are_any_or_those_that_are_named() -> None:
    assert from_env({}).url_hosts is None
    named = from_env({"OFFHOOK_URL_HOSTS": "sounds.example.com, *.CDN.example.com,localhost"}).url_hosts
    assert named == {"sounds.example.com", "*.cdn.example.com", "localhost"}


@pytest.mark.parametrize("host", ["https://example.com", "example.com/", "a b", "*", "*.", "exa*mple.com", ""])
def test_what_is_no_host_name_is_refused(host: str) -> None:
    problem = only_problem({"OFFHOOK_URL_HOSTS": f"example.com,{host}"})
    assert problem.startswith("OFFHOOK_URL_HOSTS, host 2: not a host name")


# Names


@pytest.mark.parametrize(
    ("mistyped", "nearest"),
    [
        ("OFFHOOK_SHARD", "OFFHOOK_SHARDS"),
        ("OFFHOOK_APIKEYS", "OFFHOOK_API_KEYS"),
        ("OFFHOOK_ACCOUNT_FILE", "OFFHOOK_ACCOUNTS_FILE"),
        ("OFFHOOK_PORT", "PORT"),
        ("OFFHOOK_REDIS_URL", "REDIS_URL"),
        ("offhook_data_dir", "OFFHOOK_DATA_DIR"),
    ],
)
def test_a_mistyped_name_is_refused_and_the_nearest_one_suggested(mistyped: str, nearest: str) -> None:
    assert only_problem({mistyped: "1"}) == f"{mistyped}: there is no such setting; the nearest is {nearest}"


def test_even_a_name_like_no_other_is_refused() -> None:
    assert only_problem({"OFFHOOK_": "1"}).startswith("OFFHOOK_: there is no such setting; the nearest is ")


def test_other_programs_variables_are_left_alone() -> None:
    assert from_env({"PATH": "/bin", "TWILIO_REGION": "ie1", "MY_OFFHOOK_SHARD": "1"}) == from_env({})


def test_service_links_of_a_container_platform_are_left_alone() -> None:
    links = {
        "OFFHOOK_SERVICE_HOST": "10.0.0.1",
        "OFFHOOK_SERVICE_PORT": "80",
        "OFFHOOK_SERVICE_PORT_HTTP": "80",
        "OFFHOOK_PORT": "tcp://10.0.0.1:80",
        "OFFHOOK_PORT_80_TCP": "tcp://10.0.0.1:80",
        "OFFHOOK_PORT_80_TCP_PROTO": "tcp",
        "OFFHOOK_PORT_80_TCP_PORT": "80",
        "OFFHOOK_PORT_80_TCP_ADDR": "10.0.0.1",
        "OFFHOOK_REDIS_SERVICE_HOST": "10.0.0.2",
        "OFFHOOK_REDIS_PORT": "tcp://10.0.0.2:6379",
        "OFFHOOK_REDIS_PORT_6379_TCP": "tcp://10.0.0.2:6379",
    }
    assert from_env(links) == from_env({})


# Looking at Twilio


def test_what_was_lost_is_looked_for_unless_switched_off() -> None:
    usual = from_env({})
    assert (usual.reconcile, usual.reconcile_rate, usual.adopt) == (True, 2.0, True)
    off = from_env({"OFFHOOK_RECONCILE": "off", "OFFHOOK_RECONCILE_RATE": "0.5", "OFFHOOK_ADOPT": "off"})
    assert (off.reconcile, off.reconcile_rate, off.adopt) == (False, 0.5, False)


@pytest.mark.parametrize("rate", ["0", "0.001", "101", "-1", "1e1", "fast", "2,5"])
def test_a_rate_that_cannot_be_is_refused(rate: str) -> None:
    assert only_problem({"OFFHOOK_RECONCILE_RATE": rate}).startswith("OFFHOOK_RECONCILE_RATE: not a usable rate")


def test_logins_are_those_of_accounts_that_have_a_token(accounts: Accounts) -> None:
    shared = f'[[account]]\nsid = "{OTHER}"\nshared_keys = [{{ id = "MK1", secret = "s" }}]\n'
    settings = from_env(accounts(f'{shared}[[account]]\nsid = "{SUB}"\nparent = "{MAIN}"'))
    assert settings.logins() == {MAIN: (MAIN, b"main-token"), SUB: (MAIN, b"main-token")}


# All at once, and no secret in sight


def test_all_problems_are_reported_at_once_one_a_line(accounts: Accounts) -> None:
    environ = accounts(f'[[account]]\nsid = "x"\n[[account]]\nsid = "{OTHER}"\ntokens = ["", ""]\nfoo = 1') | {
        "TWILIO_ACCOUNT_SID": "AC1",
        "PUBLIC_URL": "x",
        "REDIS_URL": "x",
        "RQ_REDIS_URL": "x",
        "DATABASE_URL": "x",
        "OFFHOOK_API_KEYS": "x,y",
        "TWILIO_API_BASE_URL": "x",
        "OFFHOOK_SHARDS": "x",
        "PORT": "x",
        "WEB_CONCURRENCY": "x",
        "OFFHOOK_LOG_LEVEL": "x",
        "OFFHOOK_TYPO": "x",
    }
    assert sorted(line.split(":")[0] for line in problems(environ)) == sorted(
        [
            "TWILIO_ACCOUNT_SID",
            "OFFHOOK_ACCOUNTS_FILE, account 1, sid",
            "OFFHOOK_ACCOUNTS_FILE, account 2",
            "PUBLIC_URL",
            "REDIS_URL",
            "RQ_REDIS_URL",
            "DATABASE_URL",
            "OFFHOOK_API_KEYS, key 1",
            "OFFHOOK_API_KEYS, key 2",
            "TWILIO_API_BASE_URL",
            "OFFHOOK_SHARDS",
            "PORT",
            "WEB_CONCURRENCY",
            "OFFHOOK_LOG_LEVEL",
            "OFFHOOK_TYPO",
        ]
    )


SECRET = "s3cr3t-Zq7w9Kx2Vb8n"
PLACES = [
    f"{SECRET}",
    f"{SECRET},{SECRET}",
    f"{SECRET} {SECRET}",
    f"{SECRET}é",
    f"{SECRET}\udcff",
    f"{SECRET}\0",
    f"bob:{SECRET}:read",
    f"bob:{SECRET}:read,bob:{SECRET}:read",
    f"bob:{SECRET}",
    f"{SECRET}:bob:read",
    f"redis://:{SECRET}@host",
    f"redis://{SECRET}#@host",
    f"redis://:{SECRET}@host:{SECRET}",
    f"redis+cluster://:{SECRET}@host",
    f"https://user:{SECRET}@host",
    f"https://user:{SECRET}@host?",
    f"https://user:{SECRET}@a\N{FULLWIDTH SOLIDUS}b",
    f"postgresql://user:{SECRET}@host/db",
    f"mysql://user:{SECRET}@host/db",
]
ACCOUNTS = f"""
    [[account]]
    sid = "{OTHER}"
    tokens = ["{SECRET}"]
    shared_keys = [{{ id = "MK1", secret = "{SECRET}" }}]
"""
FILES = [
    *PLACES[:4],
    *PLACES[6:10],
    ACCOUNTS,
    f'[[account]]\nsid = "{OTHER}"\ntokens = ["{SECRET} "," {SECRET}é"]\nparent = "{SECRET}"',
    f'[[account]]\nsid = "{SECRET}"\ntokens = ["{SECRET}"]',
    f'[[account]]\nsid = "{OTHER}"\ntokens = "{SECRET}"',
    f'[[account]]\nsid = "{OTHER}"\ntokens = [{SECRET}]',
    f'[[account]]\nsid = "{OTHER}"\ntokens = ["{SECRET}',
    f'[[account]]\nsid = "{OTHER}"\nshared_keys = [{{ id = "{SECRET}!", secret = "" }}]',
]


@pytest.fixture(scope="module")
def file_paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / str(number) for number in range(len(FILES))]
    for path, text in zip(paths, FILES, strict=True):
        path.write_text(text, encoding="utf-8")
    return [str(path) for path in paths]


@given(data=st.data())
def test_no_secret_is_shown_wherever_an_operator_puts_it(data: st.DataObject, file_paths: list[str]) -> None:
    names = st.sampled_from([*(name for name in NAMES if name != "OFFHOOK_DATA_DIR"), "OFFHOOK_TYPO"])
    environ = data.draw(st.dictionaries(names, st.sampled_from(PLACES)))
    for name in ("OFFHOOK_ACCOUNTS_FILE", "TWILIO_AUTH_TOKEN_FILE", "OFFHOOK_API_KEYS_FILE"):
        if data.draw(st.booleans()):
            environ[name] = data.draw(st.sampled_from(file_paths))
    if data.draw(st.booleans()):
        environ["TWILIO_ACCOUNT_SID"] = MAIN
    try:
        settings = from_env(environ)
    except SettingsError as error:
        shown = repr(error) + "".join(traceback.format_exception(error))
    else:
        shown = repr(settings) + str(settings.accounts) + str(settings.api_keys)
    assert SECRET not in shown


def test_settings_with_secrets_everywhere_show_none_and_all_else(accounts: Accounts) -> None:
    environ = accounts(ACCOUNTS) | {
        "TWILIO_AUTH_TOKEN": SECRET,
        "PUBLIC_URL": f"https://user:{SECRET}@host",
        "REDIS_URL": f"redis://:{SECRET}@host",
        "DATABASE_URL": f"postgresql://user:{SECRET}@host/db",
        "OFFHOOK_API_KEYS": f"bob:{SECRET}:read",
        "OFFHOOK_SHARDS": "77",
    }
    settings = from_env(environ)
    assert SECRET not in repr(settings)
    for word in ("shards=77", MAIN, "name='main'", "shared:MK1", "name='bob'", "scope='read'"):
        assert word in repr(settings)


# Alerts


SIGNING = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_rules_that_come_with_offhook_are_all_kinds_and_each_says_something() -> None:
    rules = from_env({}).alert_rules
    assert {rule.kind for rule in rules.values()} == set(get_args(Kind)) == set(TEXTS)
    assert all(text_of(rule) for rule in rules.values())


def test_a_file_of_ones_own_takes_the_place_of_the_rules(write: WriteFile) -> None:
    path = write('[[rule]]\nname = "lonely"\nkind = "alone"\nafter = 60\nseverity = "critical"\n')
    assert from_env({"OFFHOOK_ALERTS_FILE": path}).alert_rules == {
        "lonely": Rule(name="lonely", kind="alone", after=60, severity="critical")
    }
    assert from_env({"OFFHOOK_ALERTS_FILE": write("# none\n")}).alert_rules == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[rule]]\nname = "a"\nkind = "allone"', "rule 1 (a): Invalid enum value - at `$.kind`"),
        ('[[rule]]\nname = "a"\nkind = "alone"\nfor = 3', "rule 1 (a): Object contains unknown field `for`"),
        ('[[rule]]\nname = "a"\nkind = "alone"\nafter = "3m"', "rule 1 (a): Expected `int`, got `str` - at `$.after`"),
        ('[[rule]]\nname = "a"\nkind = "alone"\nafter = -1', "rule 1 (a): after or clear_after is out of range"),
        ('[[rule]]\nname = "A b"\nkind = "alone"', "rule 1: its name cannot be used"),
        ('[[rule]]\nkind = "alone"', "rule 1: Object missing required field `name`"),
        ('[[rule]]\nname = "a"\nkind = "crowded"', "rule 1 (a): more_than is missing"),
        ('[[rule]]\nname = "a"\nkind = "hold"\nmore_than = 3', "rule 1 (a): more_than belongs to kind crowded"),
        ('[[rule]]\nname = "a"\nkind = "hold"\nseverity = "loud"', "for severity one of info, warning, critical"),
        ('[[rule]]\nname = "a"\nkind = "holds"', "for kind one of alone, "),
        ('[[rule]]\nname = "a"\nkind = "add-failed"\nafter = 3', "rule 1 (a): after means nothing for kind add-failed"),
        ('[[rule]]\nname = "a"\nkind = "hold"\n' * 2, "rule 2 (a): an earlier rule has the same name"),
        ("[[rules]]\n", "OFFHOOK_ALERTS_FILE: Object contains unknown field `rules`"),
        ("[[rule]\n", "OFFHOOK_ALERTS_FILE: not TOML"),
    ],
)
def test_a_rule_that_cannot_be_used_is_named(write: WriteFile, text: str, said: str) -> None:
    problem = only_problem({"OFFHOOK_ALERTS_FILE": write(text)})
    assert problem.startswith("OFFHOOK_ALERTS_FILE")
    assert said in problem
    assert "; expected " in problem


def test_where_alerts_are_sent_and_what_signs_them() -> None:
    hooks = {"OFFHOOK_ALERT_WEBHOOKS": "https://a.example/x?k=1, https://b.example"}
    settings = from_env({**hooks, "OFFHOOK_ALERT_WEBHOOK_SECRET": f"{SIGNING},whsec_{'A' * 32}"})
    assert settings.alert_webhooks == ("https://a.example/x?k=1", "https://b.example")
    assert settings.alert_secrets == (b64decode(SIGNING[6:]), bytes(24))
    assert not settings.alert_webhooks_private
    assert "a.example" not in repr(settings)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"OFFHOOK_ALERT_WEBHOOKS": "http://a.example/"}, "OFFHOOK_ALERT_WEBHOOKS, URL 1: not https"),
        ({"OFFHOOK_ALERT_WEBHOOKS": "https://127.0.0.1:8443/x"}, "URL 1: a private address"),
        ({"OFFHOOK_ALERT_WEBHOOKS": "https://[::1]/x"}, "URL 1: a private address"),
        ({"OFFHOOK_ALERT_WEBHOOKS": "https://u:p@a.example/"}, "URL 1: not a URL that can be posted to"),
        ({"OFFHOOK_ALERT_WEBHOOKS": "https://a.example/,a.example"}, "URL 2: not a URL that can be posted to"),
        ({"OFFHOOK_ALERT_WEBHOOK_SECRET": "short"}, "OFFHOOK_ALERT_WEBHOOK_SECRET: secret 1 cannot be used"),
        ({"OFFHOOK_ALERT_WEBHOOK_SECRET": "whsec_abc"}, "OFFHOOK_ALERT_WEBHOOK_SECRET: secret 1 cannot be used"),
        ({"OFFHOOK_ALERT_WEBHOOKS_PRIVATE": "yes"}, "OFFHOOK_ALERT_WEBHOOKS_PRIVATE: not one of the words"),
    ],
)
def test_where_alerts_cannot_be_sent_is_said(environ: dict[str, str], said: str) -> None:
    assert said in "\n".join(problems({"OFFHOOK_ALERT_WEBHOOK_SECRET": SIGNING, **environ}))


def test_alerts_are_not_sent_unsigned() -> None:
    assert "OFFHOOK_ALERT_WEBHOOK_SECRET: not set" in only_problem({"OFFHOOK_ALERT_WEBHOOKS": "https://a.example/"})


def test_alerts_may_stay_within_the_network_where_that_is_said() -> None:
    environ = {"OFFHOOK_ALERT_WEBHOOKS": "http://10.0.0.1:8080/", "OFFHOOK_ALERT_WEBHOOKS_PRIVATE": "allow"}
    assert from_env({**environ, "OFFHOOK_ALERT_WEBHOOK_SECRET": SIGNING}).alert_webhooks_private
