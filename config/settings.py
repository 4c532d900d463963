"""What an operator can set: read once from the environment, typed, and checked before anything starts.

No message and no repr of this module shows a secret. To be sure of it, messages never repeat a value at all:
an operator who puts a token into the wrong variable does not find it in the log.
"""

from __future__ import annotations

import binascii
import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args
from urllib.parse import urlsplit

import msgspec
from redis.connection import parse_url

from app import failpoints
from app.alerts import PASSING, Kind, Rule, Severity
from app.failpoints import Failpoint
from app.store.durability import Mode
from app.twilio.sids import is_sid
from app.twilio.signature import Key

Scope = Literal["read", "control"]
ListStatus = Literal["all", "init", "in-progress", "completed"]
SpoolUse = Literal["auto", "on", "off"]
LogLevel = Literal["debug", "info", "warning", "error"]

NAMES = (
    "TWILIO_ACCOUNT_SID",
    "TWILIO_AUTH_TOKEN",
    "TWILIO_AUTH_TOKEN_FILE",
    "OFFHOOK_ACCOUNTS_FILE",
    "PUBLIC_URL",
    "REDIS_URL",
    "RQ_REDIS_URL",
    "OFFHOOK_DURABILITY",
    "DATABASE_URL",
    "OFFHOOK_DATA_DIR",
    "OFFHOOK_SPOOL",
    "OFFHOOK_INBOX_LIMIT",
    "OFFHOOK_API_KEYS",
    "OFFHOOK_API_KEYS_FILE",
    "OFFHOOK_LIST_STATUS",
    "OFFHOOK_URL_HOSTS",
    "OFFHOOK_ALERTS_FILE",
    "OFFHOOK_ALERT_WEBHOOKS",
    "OFFHOOK_ALERT_WEBHOOK_SECRET",
    "OFFHOOK_ALERT_WEBHOOK_SECRET_FILE",
    "OFFHOOK_ALERT_WEBHOOKS_PRIVATE",
    "TWILIO_API_BASE_URL",
    "OFFHOOK_RECONCILE",
    "OFFHOOK_RECONCILE_RATE",
    "OFFHOOK_ADOPT",
    "OFFHOOK_SHARDS",
    "PORT",
    "WEB_CONCURRENCY",
    "OFFHOOK_LOG_LEVEL",
    "OFFHOOK_FAILPOINTS",
)
"""Every variable Offhook reads."""

VISIBLE_ASCII = re.compile(r"[!-~]+")
API_KEY_NAME = re.compile(r"(?!AC)[A-Za-z0-9_-]+")
HOST_NAME = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
RULE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
RULES_FILE = Path(__file__).with_name("alerts.toml")
SHARED_KEY_ID = re.compile(r"[A-Za-z0-9_-]+")

# Kubernetes and old Docker links put the address of every service into the environment; of one called
# "offhook" or "offhook-redis" the names begin with OFFHOOK_, and nobody mistyped them.
SERVICE_LINK = re.compile(r"OFFHOOK_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://.*")


class SettingsError(ValueError):
    """Settings that cannot be used. `str()` is for the operator: every problem found, one a line."""


class Account(msgspec.Struct, frozen=True):
    """A Twilio account whose callbacks are accepted, with every key that may have signed them.

    `keys` holds its own keys first, then its parent's: Twilio's docs do not say whose token signs for a
    subaccount's conference that began at the parent's number. Keys whose algorithm is sha1 are Auth Tokens.
    """

    sid: str
    keys: tuple[Key, ...]
    parent: str | None
    login: tuple[str, Key] | None
    """Account sid and Auth Token for Twilio's REST API: its own, else its parent's; the newest of several."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key to Offhook's own API, and what it opens."""

    name: str
    secret: bytes = field(repr=False)
    scope: Scope
    account: str | None
    """The account it is for, subaccounts included; None: all."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All that an operator chose or left to its default. URLs may hold passwords, so repr leaves them out."""

    accounts: dict[str, Account]
    """By sid, the main account first; empty when none is configured."""
    public_url: str | None = field(repr=False)
    """Without trailing slash; None: take it from each request."""
    redis_url: str | None = field(repr=False)
    """None: the embedded Valkey."""
    rq_redis_url: str | None = field(repr=False)
    durability: Mode
    """The least that Redis must do before a callback is acknowledged."""
    data_dir: Path
    """Absolute; it need not exist yet."""
    spool: SpoolUse
    """Whether callbacks that Redis cannot take are kept in `data_dir`; auto: if that outlives a container."""
    inbox_limit: int
    """Callbacks that may wait to be folded; for speech there is room for half as many."""
    api_keys: tuple[ApiKey, ...]
    list_status: ListStatus
    """What a Twilio-shaped list of conferences shows that asks for no status."""
    url_hosts: frozenset[str] | None
    """Hosts that Twilio may be told to fetch announcements and the like from, in lower case; None: any."""
    alert_rules: dict[str, Rule]
    """By name: when alerts are raised."""
    alert_webhooks: tuple[str, ...] = field(repr=False)
    """Where alerts are sent."""
    alert_secrets: tuple[bytes, ...] = field(repr=False)
    """What signs them, the newest first."""
    alert_webhooks_private: bool
    """Whether they may be sent into our own network, and without TLS."""
    shards: int
    port: int
    web_concurrency: int
    twilio_api_base_url: str = field(repr=False)
    reconcile: bool
    """Whether Twilio's REST API is looked at where callbacks were lost."""
    reconcile_rate: float
    """Requests a second of each account for that."""
    adopt: bool
    """Whether conferences that go on already are taken over at the start."""
    database_url: str | None = field(repr=False)
    """None: a SQLite file in `data_dir`."""
    log_level: LogLevel
    failpoints: tuple[Failpoint, ...]
    """Faults to inject, in tests of what is lost; see `app.failpoints`."""

    def logins(self) -> dict[str, tuple[str, bytes]]:
        """Name and secret for Twilio's REST API, by account sid; of those accounts that have one."""
        found = ((sid, account.login) for sid, account in self.accounts.items())
        return {sid: (login[0], login[1].secret) for sid, login in found if login is not None}


def from_env(environ: Mapping[str, str]) -> Settings:
    """Settings from environment variables and the files they name; an empty variable counts as unset.

    Raises SettingsError with every problem found. No account at all is not one: the demo brings its own.
    """
    env = _Environment(environ)
    env.refuse_unknown_names()
    redis_url = env.redis_url("REDIS_URL")
    accounts = _accounts(env)
    settings = Settings(
        accounts=accounts,
        public_url=env.web_url("PUBLIC_URL"),
        redis_url=redis_url,
        rq_redis_url=env.redis_url("RQ_REDIS_URL") or redis_url,
        durability=cast(Mode, env.one_of("OFFHOOK_DURABILITY", get_args(Mode), "everysec")),
        data_dir=Path(env.get("OFFHOOK_DATA_DIR") or ".offhook").absolute(),
        spool=cast(SpoolUse, env.one_of("OFFHOOK_SPOOL", get_args(SpoolUse), "auto")),
        inbox_limit=env.number("OFFHOOK_INBOX_LIMIT", most=100_000_000, default=400_000),
        api_keys=_api_keys(env, accounts),
        list_status=cast(ListStatus, env.one_of("OFFHOOK_LIST_STATUS", get_args(ListStatus), "all")),
        url_hosts=_hosts(env),
        alert_rules=_rules(env),
        alert_webhooks=_alert_webhooks(env),
        alert_secrets=_alert_secrets(env),
        alert_webhooks_private=env.one_of("OFFHOOK_ALERT_WEBHOOKS_PRIVATE", ("refuse", "allow"), "refuse") == "allow",
        shards=env.number("OFFHOOK_SHARDS", most=256, default=16),
        port=env.number("PORT", most=65535, default=8000),
        web_concurrency=env.number("WEB_CONCURRENCY", most=64, default=min(4, _usable_cores())),
        twilio_api_base_url=env.web_url("TWILIO_API_BASE_URL") or "https://api.twilio.com",
        reconcile=env.is_on("OFFHOOK_RECONCILE"),
        reconcile_rate=env.rate("OFFHOOK_RECONCILE_RATE", most=100, default=2.0),
        adopt=env.is_on("OFFHOOK_ADOPT"),
        database_url=env.database_url("DATABASE_URL"),
        log_level=cast(LogLevel, env.one_of("OFFHOOK_LOG_LEVEL", get_args(LogLevel), "info")),
        failpoints=_failpoints(env),
    )
    if env.problems:
        raise SettingsError("\n".join(env.problems))
    return settings


class _Environment:
    """The variables that are set, and what is wrong with them so far. A refused one reads as if unset."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.variables = {name: value for name, value in environ.items() if value}
        self.problems: list[str] = []

    def refuse_unknown_names(self) -> None:
        """A mistyped OFFHOOK_ variable must not go unnoticed."""
        short_names = {name.removeprefix("OFFHOOK_"): name for name in NAMES}
        for name, value in self.variables.items():
            prefix, short = name[:8].upper(), name[8:].upper()
            if prefix != "OFFHOOK_" or name in NAMES or _is_service_link(name, value):
                continue
            [nearest] = difflib.get_close_matches(short, short_names, n=1, cutoff=0)
            self.problems.append(f"{name}: there is no such setting; the nearest is {short_names[nearest]}")

    def refuse(self, where: str, wrong: str, expected: str) -> None:
        """Note one problem. None of the three may contain a value."""
        self.problems.append(f"{where}: {wrong}; expected {expected}")

    def get(self, name: str) -> str | None:
        """The value, or None when unset or empty."""
        return self.variables.get(name)

    def redis_url(self, name: str) -> str | None:
        """A URL the Redis client can use."""
        url = self.get(name)
        if url is None:
            return None
        expected = "redis://[:password@]host[:port][/database number], rediss://… for TLS, or unix:///path"
        if re.match(r"rediss?\+(cluster|sentinel):", url):
            self.refuse(name, "Redis Cluster and Sentinel are not supported yet", expected)
        elif not _is_redis_url(url):
            wrong = "not a usable Redis URL (in a password, percent-encode what is no letter or digit)"
            self.refuse(name, wrong, expected)
        return url

    def web_url(self, name: str) -> str | None:
        """An http or https URL that paths can be appended to, without trailing slash."""
        url = self.get(name)
        if url is None:
            return None
        if not _is_web_url(url):
            expected = "http:// or https://, a host, then perhaps a port and a path, in ASCII; no ? and no #"
            self.refuse(name, "not a URL that paths can be appended to", expected)
        if url.rstrip("/").endswith("/webhooks/twilio"):
            self.refuse(name, "ends with the webhook's own path", "what comes before /webhooks/twilio")
        return url.rstrip("/")

    def number(self, name: str, *, most: int, default: int) -> int:
        """A whole number from 1 to `most`."""
        text = self.get(name)
        if text is None:
            return default
        if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= most:
            self.refuse(name, "not a usable number", f"a whole number from 1 to {most}, digits only")
            return default
        return int(text)

    def database_url(self, name: str) -> str | None:
        """A URL of one of the two databases that can keep history."""
        url = self.get(name)
        if url is not None and not re.fullmatch(r"(sqlite|postgresql)(\+\w+)?://[!-~]+", url):
            expected = "sqlite:////absolute/path or postgresql://user:password@host/database"
            self.refuse(name, "not a usable database URL", expected)
        return url

    def one_of(self, name: str, words: Sequence[str], default: str) -> str:
        """One of a few words."""
        word = self.get(name) or default
        if word not in words:
            self.refuse(name, "not one of the words it can be", "one of " + ", ".join(words))
        return word

    def is_on(self, name: str) -> bool:
        """Whether what is on unless switched off is so."""
        return self.one_of(name, ("on", "off"), "on") == "on"

    def rate(self, name: str, *, most: int, default: float) -> float:
        """So many a second, from a hundredth to `most`."""
        text = self.get(name)
        if text is None:
            return default
        if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,2})?", text) or not 0.01 <= float(text) <= most:
            self.refuse(name, "not a usable rate", f"a number from 0.01 to {most}, such as 2 or 0.5")
            return default
        return float(text)

    def is_given(self, name: str) -> bool:
        """Whether the secret `name` is set, by itself or as a file."""
        return name in self.variables or f"{name}_FILE" in self.variables

    def secret(self, name: str) -> tuple[str, str]:
        """The secret `name`, given by itself or in a file: (the variable that gave it, its text or "")."""
        in_file = f"{name}_FILE"
        if in_file not in self.variables:
            return name, self.variables.get(name, "")
        if name in self.variables:
            self.refuse(in_file, f"{name} is set as well", "only one of the two")
        text = self.file(in_file)
        if text == "":
            self.refuse(in_file, "the file it names is empty", "the secret in that file, and nothing else")
        return in_file, text or ""

    def file(self, name: str) -> str | None:
        """Text of the file that variable `name` names, less newlines at its end; None if unreadable."""
        try:
            return Path(self.variables[name]).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            reason = error.strerror or type(error).__name__
        except ValueError:
            reason = "not UTF-8 text"
        self.refuse(name, f"cannot read the file it names ({reason})", "the path of a readable text file")
        return None


def _is_service_link(name: str, value: str) -> bool:
    """Whether a container platform, not the operator, set this OFFHOOK_ variable."""
    if SERVICE_LINK.fullmatch(name):
        return True
    return name.endswith("_PORT") and SERVICE_ADDRESS.fullmatch(value) is not None


def _is_redis_url(url: str) -> bool:
    """Stricter than the client: it takes host localhost and database 0 for what it cannot read."""
    try:
        server = parse_url(url)  # type: ignore[no-untyped-call]  # the client ships it without types
        path = urlsplit(url).path
    except ValueError:
        return False
    if not VISIBLE_ASCII.fullmatch(url):
        return False
    if url.startswith("unix:"):
        return "path" in server
    return "host" in server and re.fullmatch("/?|/[0-9]{1,9}", path) is not None


def _is_web_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return (
        VISIBLE_ASCII.fullmatch(url) is not None
        and parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and port != 0
        and not parts.netloc.endswith(":")
        and "?" not in url
        and "#" not in url
    )


class _SharedKey(msgspec.Struct, forbid_unknown_fields=True):
    """One of `shared_keys` of an entry of the accounts file."""

    id: str
    secret: str


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    """One [[account]] of the accounts file."""

    sid: str
    tokens: list[str] = []
    parent: str | None = None
    shared_keys: list[_SharedKey] = []


class _AccountsFile(msgspec.Struct, forbid_unknown_fields=True):
    """The accounts file. Entries are read one by one, so that each can be faulted."""

    account: list[dict[str, Any]] = []


def _accounts(env: _Environment) -> dict[str, Account]:
    """The main account, then those of the accounts file, each with its parent's keys behind its own."""
    own = _main_account(env)
    entries: dict[str, tuple[str, _Entry]] = {}
    for where, entry in _entries(env):
        if entry.sid in entries:
            env.refuse(where, "this sid has an entry already", "one entry per account, with all its keys")
            continue
        entries[entry.sid] = where, entry
        own[entry.sid] = own.get(entry.sid, ()) + _keys(env, where, entry)
    parents = {sid: entry.parent for sid, (_, entry) in entries.items() if entry.parent}
    for sid, parent in parents.items():
        where = f"{entries[sid][0]}, parent"
        if parent not in own:
            env.refuse(where, "no such account", "the sid of the main account or of another entry")
        elif parent in parents:
            env.refuse(where, "that account has a parent itself", "an account without parent")
    return {
        sid: Account(
            sid=sid,
            keys=keys + own.get(parents.get(sid, ""), ()),
            parent=parents.get(sid),
            login=_login(sid, keys) or _login(parents.get(sid, ""), own.get(parents.get(sid, ""), ())),
        )
        for sid, keys in own.items()
    }


def _login(sid: str, keys: tuple[Key, ...]) -> tuple[str, Key] | None:
    token = next((key for key in keys if key.algorithm == "sha1"), None)
    return None if token is None else (sid, token)


def _main_account(env: _Environment) -> dict[str, tuple[Key, ...]]:
    """The account of TWILIO_ACCOUNT_SID with its Auth Tokens, newest first; empty when it is not set."""
    sid = env.get("TWILIO_ACCOUNT_SID")
    where, text = env.secret("TWILIO_AUTH_TOKEN")
    tokens = _tokens(env, where, "main", text.split(",")) if text else ()
    if sid is None:
        if env.is_given("TWILIO_AUTH_TOKEN"):
            env.refuse("TWILIO_ACCOUNT_SID", f"not set, though {where} is", "the account whose token that is")
        return {}
    if not env.is_given("TWILIO_AUTH_TOKEN"):
        env.refuse("TWILIO_AUTH_TOKEN", "not set, though TWILIO_ACCOUNT_SID is", "that account's Auth Token")
    if not is_sid("AC", sid):
        env.refuse("TWILIO_ACCOUNT_SID", "not an account sid", "AC and 32 hexadecimal digits")
    return {sid: tokens}


def _tokens(env: _Environment, where: str, name: str, tokens: list[str]) -> tuple[Key, ...]:
    """A key for each Auth Token: `name`, `name`-2, …"""
    keys = []
    for number, token in enumerate((token.strip() for token in tokens), start=1):
        if VISIBLE_ASCII.fullmatch(token):
            keys.append(Key(name=name if number == 1 else f"{name}-{number}", secret=token.encode()))
        else:
            wrong = f"token {number} is empty, or has a space or something that is not ASCII in it"
            env.refuse(where, wrong, "Auth Tokens as Twilio's Console shows them")
    return tuple(keys)


def _entries(env: _Environment) -> list[tuple[str, _Entry]]:
    """The readable entries of the accounts file, each with the words that say where it stands."""
    variable = "OFFHOOK_ACCOUNTS_FILE"
    text = env.file(variable) if env.get(variable) else None
    if text is None:
        return []
    expected = "what config/accounts.example.toml shows"
    listed = _toml(env, variable, text, _AccountsFile, expected)
    entries = []
    for number, values in enumerate(listed.account if listed else (), start=1):
        where = f"{variable}, account {number}"
        try:
            entry = msgspec.convert(values, _Entry)
        except msgspec.ValidationError as error:
            env.refuse(where, str(error), expected)
            continue
        if is_sid("AC", entry.sid):
            entries.append((where, entry))
        else:
            env.refuse(f"{where}, sid", "not an account sid", "AC and 32 hexadecimal digits")
    return entries


F = TypeVar("F")


def _toml(env: _Environment, where: str, text: str, shape: type[F], expected: str) -> F | None:
    """What a TOML file holds; None where it cannot be read as that."""
    try:
        return msgspec.convert(tomllib.loads(text), shape)
    except msgspec.ValidationError as error:
        env.refuse(where, str(error), expected)
    except ValueError as error:  # its message may quote the file; the place it names is safe to show
        place = re.search(r"\(at (line \d+, column \d+|end of document)\)$", str(error))
        env.refuse(where, f"not TOML {place.group() if place else ''}".rstrip(), expected)
    return None


class _RulesFile(msgspec.Struct, forbid_unknown_fields=True):
    """The file of alert rules. They are read one by one, so that each can be faulted."""

    rule: list[dict[str, Any]] = []


def _rules(env: _Environment) -> dict[str, Rule]:
    """The rules of OFFHOOK_ALERTS_FILE, or else those that come with Offhook."""
    variable, expected = "OFFHOOK_ALERTS_FILE", "what config/alerts.toml shows"
    text = env.file(variable) if env.get(variable) else RULES_FILE.read_text(encoding="utf-8")
    listed = None if text is None else _toml(env, variable, text, _RulesFile, expected)
    rules: dict[str, Rule] = {}
    for number, values in enumerate(listed.rule if listed else (), start=1):
        name = values.get("name")
        named = isinstance(name, str) and RULE_NAME.fullmatch(name)
        where = f"{variable}, rule {number}" + (f" ({name})" if named else "")
        try:
            rule = msgspec.convert(values, Rule)
        except msgspec.ValidationError as error:
            env.refuse(where, re.sub(r" '.*'", "", str(error)), _expected_of_rule(values, expected))
            continue
        if not named:
            env.refuse(where, "its name cannot be used", "lower-case letters, digits and hyphens, 64 at most")
        elif rule.name in rules:
            env.refuse(where, "an earlier rule has the same name", "a name of its own for each rule")
        elif not (0 <= rule.after <= LONGEST and 0 <= rule.clear_after <= LONGEST):
            env.refuse(where, "after or clear_after is out of range", f"whole seconds from 0 to {LONGEST}")
        elif rule.kind == "crowded" and rule.more_than is None:
            env.refuse(where, "more_than is missing", "a number of participants")
        elif rule.kind != "crowded" and rule.more_than is not None:
            env.refuse(where, "more_than belongs to kind crowded, and to no other", expected)
        elif rule.more_than is not None and rule.more_than < 0:
            env.refuse(where, "more_than is less than nothing", "a number of participants")
        elif rule.after and rule.kind in PASSING:
            env.refuse(where, f"after means nothing for kind {rule.kind}", "only clear_after")
        else:
            rules[rule.name] = rule
    return rules


def _expected_of_rule(values: Mapping[str, Any], otherwise: str) -> str:
    """The words that a rule may have where it has another."""
    for name, words in (("kind", Kind), ("severity", Severity)):
        if name in values and values[name] not in get_args(words):
            return f"for {name} one of {', '.join(get_args(words))}"
    return otherwise


LONGEST = 7 * 24 * 3600
"""Seconds that a rule may wait."""


def _alert_webhooks(env: _Environment) -> tuple[str, ...]:
    """The URLs of OFFHOOK_ALERT_WEBHOOKS, with commas between them."""
    variable = "OFFHOOK_ALERT_WEBHOOKS"
    urls = [url.strip() for url in (env.get(variable) or "").split(",") if url.strip()]
    private = env.get("OFFHOOK_ALERT_WEBHOOKS_PRIVATE") == "allow"
    for number, url in enumerate(urls, start=1):
        where = f"{variable}, URL {number}"
        if "@" in url or not _is_web_url(url.partition("?")[0]) or not VISIBLE_ASCII.fullmatch(url) or "#" in url:
            env.refuse(
                where, "not a URL that can be posted to", "https://, a host, perhaps a path and a query, in ASCII"
            )
        elif not private and not url.startswith("https://"):
            env.refuse(where, "not https", "https://…, or OFFHOOK_ALERT_WEBHOOKS_PRIVATE=allow")
        elif not private and _is_private(urlsplit(url).hostname or ""):
            env.refuse(where, "a private address", "a public one, or OFFHOOK_ALERT_WEBHOOKS_PRIVATE=allow")
    if urls and not env.is_given("OFFHOOK_ALERT_WEBHOOK_SECRET"):
        env.refuse(
            "OFFHOOK_ALERT_WEBHOOK_SECRET",
            f"not set, though {variable} is",
            "whsec_ and what `openssl rand -base64 32` prints",
        )
    return tuple(dict.fromkeys(urls))


def _is_private(host: str) -> bool:
    """Whether a host is surely not out in the Internet; what names lead to is looked at when they are used."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost"


def _alert_secrets(env: _Environment) -> tuple[bytes, ...]:
    """The secrets of OFFHOOK_ALERT_WEBHOOK_SECRET: while rotating several, the new one first."""
    where, text = env.secret("OFFHOOK_ALERT_WEBHOOK_SECRET")
    secrets = []
    for number, word in enumerate(text.split(",") if text else (), start=1):
        prefix, _, rest = word.strip().partition("_")
        try:
            secret = binascii.a2b_base64(rest, strict_mode=True)
        except ValueError:
            secret = b""
        if prefix != "whsec" or not 24 <= len(secret) <= 64:
            expected = "whsec_ and 24 to 64 bytes in base64, such as `openssl rand -base64 32` prints"
            env.refuse(where, f"secret {number} cannot be used", expected)
        secrets.append(secret)
    return tuple(secrets)


def _keys(env: _Environment, where: str, entry: _Entry) -> tuple[Key, ...]:
    """An entry's own keys: its Auth Tokens, then its shared keys (Twilio docs, Webhook shared keys)."""
    if not entry.tokens and not entry.shared_keys and not entry.parent:
        env.refuse(where, "no key to verify a callback with", "tokens, shared_keys or a parent")
    keys = list(_tokens(env, f"{where}, tokens", entry.sid[-6:], entry.tokens))
    for number, shared in enumerate(entry.shared_keys, start=1):
        place = f"{where}, shared key {number}"
        secret = shared.secret.strip()
        if not SHARED_KEY_ID.fullmatch(shared.id):
            env.refuse(f"{place}, id", "not an id of a shared key", "ASCII letters, digits, - and _")
        elif not VISIBLE_ASCII.fullmatch(secret):
            wrong = "empty, or has a space or something that is not ASCII in it"
            env.refuse(f"{place}, secret", wrong, "the secret as Twilio showed it")
        else:
            name = f"shared:{shared.id}"
            keys.append(Key(name=name, secret=secret.encode(), algorithm="sha256", key_id=shared.id))
    return tuple(keys)


def _api_keys(env: _Environment, accounts: Mapping[str, Account]) -> tuple[ApiKey, ...]:
    """The keys of OFFHOOK_API_KEYS: `name:secret:scope` or `name:secret:scope:account`, with commas between them."""
    variable, text = env.secret("OFFHOOK_API_KEYS")
    keys: dict[str, ApiKey] = {}
    for number, entry in enumerate(text.split(",") if text else (), start=1):
        where = f"{variable}, key {number}"
        name, _, rest = entry.strip().partition(":")
        secret, _, scope = rest.rpartition(":")
        account = None
        if is_sid("AC", scope):
            account = scope
            secret, _, scope = secret.rpartition(":")
        if not API_KEY_NAME.fullmatch(name):
            expected = "name:secret:scope, the name of ASCII letters, digits, - and _, not beginning with AC"
            env.refuse(where, "its name cannot be used", expected)
        elif scope not in get_args(Scope):
            expected = "name:secret:read or name:secret:control, perhaps with : and an account sid behind it"
            env.refuse(where, "its scope is missing or unknown", expected)
        elif account is not None and account not in accounts:
            env.refuse(where, "its account is not configured", "the sid of the main account or of a file's entry")
        elif len(secret) < 16 or not VISIBLE_ASCII.fullmatch(secret):
            expected = "at least 16 ASCII characters, no space or comma, such as `openssl rand -hex 24` makes"
            env.refuse(where, "its secret cannot be used", expected)
        elif name in keys:
            env.refuse(where, "an earlier key has the same name", "a name of its own for each key")
        else:
            keys[name] = ApiKey(name=name, secret=secret.encode(), scope=cast(Scope, scope), account=account)
    return tuple(keys.values())


def _failpoints(env: _Environment) -> tuple[Failpoint, ...]:
    try:
        return tuple(failpoints.parse(env.get("OFFHOOK_FAILPOINTS") or ""))
    except ValueError as error:
        env.refuse("OFFHOOK_FAILPOINTS", "not a list of failpoints", str(error))
        return ()


def _hosts(env: _Environment) -> frozenset[str] | None:
    """The hosts of OFFHOOK_URL_HOSTS, with commas between them."""
    text = env.get("OFFHOOK_URL_HOSTS")
    if text is None:
        return None
    hosts = [host.strip().lower() for host in text.split(",")]
    for number, host in enumerate(hosts, start=1):
        if not HOST_NAME.fullmatch(host):
            env.refuse(
                f"OFFHOOK_URL_HOSTS, host {number}",
                "not a host name",
                "such as example.com, or *.example.com for all below",
            )
    return frozenset(hosts)


def _usable_cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
