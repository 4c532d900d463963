"""The operator's bench: run, web, worker, simulate, tail, link, twiml, verify, replay, reconcile."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError

import click
import structlog
from msgspec.structs import replace
from redis import Redis, RedisError

from app import fold, tail
from app.conference import UNDETERMINED, document, encode, read_header
from app.events import Event
from app.store import embedded
from app.store.connect import WrongLayout, claim_layout, connect
from app.store.durability import examine, waits
from app.store.feed import Feed
from app.store.inbox import Inbox, is_behind
from app.store.index import LIVE
from app.store.looks import Looks
from app.store.sessions import Sessions
from app.store.snapshots import Snapshots
from app.supervisor import CannotStart, Process, Supervisor
from app.twilio.callbacks import Unusable, read_filed
from app.twilio.resources import accounts_path
from app.twilio.sids import is_sid
from app.twilio.twiml import participant_parameters
from app.twilio.twiml import twiml as twiml_document
from config.logs import configure_logs
from config.settings import Settings, SettingsError, from_env

if TYPE_CHECKING:
    from app.simulator.api import Double
    from app.simulator.exchange import Exchange

PATIENCE = 5.0
FOLDED_WITHIN = 120.0
"""Seconds that `replay` waits for a worker to fold what it has sent again."""
ON_COMMAND = "command"
"""Who has asked for a look, where `reconcile` has."""
DEMO = "demo.json"
"""In the data directory: the demo's account and key."""

PROBABILITY = click.FloatRange(0, 1)

log = structlog.get_logger("offhook")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Offhook always knows who is in which Twilio conference, because Twilio told it."""


@main.command()
@click.option("--demo", is_flag=True, help="Bring simulated conferences, and an account for them if none is set.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is every one.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Worker processes.")
@click.option(
    "--conferences",
    type=click.IntRange(1, 200),
    default=8,
    show_default=True,
    help="How many the demo keeps up.",
)
@click.option(
    "--lose",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of callbacks that the demo loses.",
)
def run(demo: bool, host: str, workers: int, conferences: int, lose: float) -> None:
    """Start everything: Valkey (unless REDIS_URL is set), worker and web. Ctrl-C or SIGTERM stops all of it."""
    settings = _settings()
    configure_logs(settings.log_level)
    environ = dict(os.environ)
    demo_key, demo_api = None, []
    with _only_one(settings.data_dir):
        if demo:
            demo_key = _demo_account(settings, environ)
            demo_api = _demo_api(environ)
            settings = _settings(environ)
        if not settings.accounts:
            raise click.ClickException(
                "No Twilio account is configured, so no callback could be believed. Set TWILIO_ACCOUNT_SID and "
                "TWILIO_AUTH_TOKEN, or have a look first with: offhook run --demo"
            )
        _check_free(host, settings.port)
        processes: list[Process] = []
        if settings.redis_url is None:
            if waits(settings.durability):
                raise click.ClickException(
                    f"OFFHOOK_DURABILITY is {settings.durability}, and the embedded Valkey has no replica. Set "
                    "REDIS_URL to a Redis that has one, or leave OFFHOOK_DURABILITY out."
                )
            processes.append(_valkey(settings, environ))
            environ["REDIS_URL"] = embedded.url(settings.data_dir)
            settings = _settings(environ)
        else:
            _check_redis(settings)
            _check_durability(settings)
        here = [sys.executable, "-m", "app"]
        local = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{settings.port}"  # noqa: S104 - compared, not bound
        processes += [
            Process(f"worker {number}", [sys.executable, "-m", "workers"], environ) for number in range(1, workers + 1)
        ]
        processes.append(
            Process("web", [*here, "web", "--host", host], environ, ready=lambda: _answers(f"{local}/readyz"))
        )
        if demo:
            simulate_command = [*here, "simulate", "--url", f"{local}/webhooks/twilio", "--quiet"]
            simulate_command += ["--conferences", str(conferences), "--lose", str(lose), *demo_api]
            processes.append(Process("demo", simulate_command, environ))
        try:
            Supervisor(processes).run(started=lambda: _greet(local, settings, demo_key))
        except CannotStart as error:
            raise click.ClickException(f"{error}. What it said is above, or in {settings.data_dir}.") from error


@main.command()
@click.option("--host", default="0.0.0.0", show_default=True, help="Address to listen on.")  # noqa: S104 - a server's default
def web(host: str) -> None:
    """Start the web process alone (gunicorn). Needs REDIS_URL."""
    settings = _settings()
    if settings.redis_url is None:
        raise click.ClickException(
            "REDIS_URL is not set. `offhook run` brings a Redis of its own; web needs to be told."
        )
    if not settings.accounts:
        raise click.ClickException(
            "TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN are not set: no callback could be believed."
        )
    configure_logs(settings.log_level)
    redis = connect(settings.redis_url, patience=PATIENCE)
    try:
        claim_layout(redis, settings.shards)
    except WrongLayout as error:
        raise click.ClickException(str(error)) from error
    except RedisError as error:  # it may come back; until then callbacks are spooled, or answered 503
        log.error("Redis does not answer, or cannot", error=type(error).__name__)
    else:
        if wrong := examine(redis, settings.durability).sentences:
            log.error("Redis is not what OFFHOOK_DURABILITY asks for", asked=settings.durability, wrong=wrong)
    address = ["--bind", f"{host}:{settings.port}", "--workers", str(settings.web_concurrency)]
    gunicorn = [
        sys.executable,
        "-m",
        "gunicorn",
        "--config",
        "python:config.gunicorn",
        *address,
        "app.wsgi:main()",
    ]
    os.execv(sys.executable, gunicorn)  # noqa: S606 - our own command; a fresh process, so that gevent comes first


@main.command()
def worker() -> None:
    """Start a worker process alone. Needs REDIS_URL."""
    os.execv(sys.executable, [sys.executable, "-m", "workers"])  # noqa: S606 - our own command


@main.command()
@click.option("--url", default=None, help="Where to send callbacks [default: this machine's Offhook].")
@click.option("--conferences", type=click.IntRange(0, 2000), default=8, show_default=True, help="Kept up at a time.")
@click.option("--speed", type=click.FloatRange(0.01, 1000), default=1.0, show_default=True, help="Times real time.")
@click.option("--seed", type=int, default=None, help="The same stories again.")
@click.option("--seconds", type=click.FloatRange(0.1), default=None, help="Stop after so long [default: Ctrl-C].")
@click.option("--quiet", is_flag=True, help="No progress line.")
@click.option("--api", is_flag=True, help="Play Twilio's REST API as well, for TWILIO_API_BASE_URL.")
@click.option("--api-port", type=click.IntRange(0, 65535), default=8010, show_default=True, help="Its port; 0 is any.")
@click.option("--lose", type=PROBABILITY, default=0.0, help="Share of callbacks that are lost, such as 0.05.")
@click.option("--delay", type=click.FloatRange(0), default=0.0, help="Each is up to so many seconds late.")
@click.option("--duplicate", type=PROBABILITY, default=0.0, help="Share that comes again within 15 seconds.")
@click.option("--reorder", type=PROBABILITY, default=0.0, help="Share held back up to 5 seconds, and overtaken.")
@click.option("--burst", type=PROBABILITY, default=0.0, help="Share lost as ten in a row of one conference.")
@click.option("--outage", type=PROBABILITY, default=0.0, help="Share of real time, in 20 s pieces, that loses all.")
def simulate(
    url: str | None,
    conferences: int,
    speed: float,
    seed: int | None,
    seconds: float | None,
    quiet: bool,
    api: bool,
    api_port: int,
    **faults: float,
) -> None:
    """Send the signed callbacks of made-up conferences, as Twilio would, until stopped.

    On request some are lost, late, repeated or overtaken on their way. The seed says which; all times are divided by
    the speed.
    """
    from app.simulator.agenda import Agenda
    from app.simulator.exchange import Exchange
    from app.simulator.faults import Faults, Line
    from app.simulator.post import Post, Report
    from app.simulator.run import simulate as play
    from app.simulator.sender import Sender

    if conferences == 0 and not api:
        raise click.ClickException("With --conferences 0 there is nothing to do; did you mean --api as well?")
    settings = _settings()
    account = next(iter(settings.accounts.values()), None)
    if account is None:
        raise click.ClickException(
            "TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN are not set: the callbacks must be signed."
        )
    token = next(key.secret.decode() for key in account.keys if key.algorithm == "sha1")
    here = f"http://127.0.0.1:{settings.port}"
    target = url or f"{here}/webhooks/twilio"
    signed = f"{settings.public_url}/webhooks/twilio" if settings.public_url and url is None else target
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if seconds is not None:
        timer = threading.Timer(seconds, stop.set)
        timer.daemon = True
        timer.start()

    def progress(report: Report) -> None:
        if not quiet:
            click.echo(
                f"\r{report.accepted} stored, {report.refused} refused, {report.unanswered} unanswered"
                f"{f', {line.lost} lost on purpose' if any(faults.values()) else ''} ",
                nl=False,
            )

    if seed is None:
        seed = secrets.randbits(32)
    post, later = Post(Sender(target, token, signed_url=signed)), Agenda().later
    line = Line(Faults(**faults), seed, post.put, later, speed=speed, calm=stop.is_set)
    exchange = Exchange(account.sid, line.send, later, speed=speed)
    if any(faults.values()) and not quiet:
        click.echo(f"Callbacks fare badly on purpose: the same stories and losses again with --seed {seed}.")
    with _double(exchange, token, api_port) if api else nullcontext() as double:
        if double and not quiet:
            click.echo(f"Twilio's REST API is played at {double.url}: set TWILIO_API_BASE_URL to that.")
        ended = play(post, exchange, conferences=conferences, seed=seed, speed=speed, stop=stop, report=progress)
    if not quiet:
        click.echo()
    if ended.accepted == 0 and conferences:
        why = "its log says why it refused them" if ended.refused else "nobody answered there"
        raise click.ClickException(f"Nothing was stored by {target}: {why}.")


def _double(exchange: Exchange, token: str, port: int) -> Double:
    """Twilio's REST API over this exchange, on a port of this machine."""
    from app.simulator.api import Double

    try:
        return Double(exchange, token, port=port)
    except OSError as error:
        raise click.ClickException(
            f"Cannot serve the API on 127.0.0.1:{port}: {error.strerror}. Give it another --api-port."
        ) from error


@main.command("tail")
@click.argument("conference", required=False)
@click.option("--account", default=None, help="Only this account's, by its sid.")
@click.option("--name", default=None, help="Only conferences with this in their name.")
@click.option("--who", default=None, help="Only what concerns this call sid, or a label with this in it.")
@click.option("--event", "events", multiple=True, help="Only types with this in them, such as mute; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Each message as it is published, one a line.")
def tail_command(
    conference: str | None,
    account: str | None,
    name: str | None,
    who: str | None,
    events: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show changes as they are committed: of all conferences, or of one by its sid."""
    for kind, what, sid in (("CF", "conference", conference), ("AC", "account", account)):
        if sid is not None and not is_sid(kind, sid):
            raise click.ClickException(f"That is no {what} sid: expected {kind} and 32 hexadecimal digits.")
    settings = _settings()
    _check_redis(settings)
    feed = Feed(_redis(settings), settings.shards)
    chosen = tail.Chosen(conference, account, name, who, events)
    try:
        for raw, message in tail.changes(feed, chosen, lambda words: click.echo(words, err=True)):
            click.echo(raw if as_json else tail.line(message))
    except KeyboardInterrupt:
        return
    except RedisError as error:
        raise click.ClickException(f"Redis does not answer: {error}") from error


@main.command()
@click.option("--url", default=None, help="Where browsers reach this Offhook [default: PUBLIC_URL, or this machine].")
def link(url: str | None) -> None:
    """Print a link that signs a browser in: it works once, within an hour, for whoever has it."""
    settings = _settings()
    demo = _read_demo(settings)
    key = _own_key(settings) or (("demo", demo["key"].encode()) if demo else None)
    if key is None:
        raise click.ClickException(
            "There is no key to sign in with. Set TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN, or OFFHOOK_API_KEYS, as "
            "they are for the Offhook that is running."
        )
    base = url or settings.public_url or f"http://127.0.0.1:{settings.port}"
    click.echo(_one_use(base.rstrip("/"), _redis(settings), key))


@main.command()
@click.argument("room")
def twiml(room: str) -> None:
    """Print the TwiML that puts a call into ROOM and tells us about it, and the same for the Participants API."""
    settings = _settings()
    if settings.public_url is None:
        raise click.ClickException("PUBLIC_URL is not set: Twilio must be told where on the internet this Offhook is.")
    click.echo(twiml_document(room, settings.public_url))
    click.echo("\nThe same for POST …/Conferences/ROOM/Participants.json, beside From and To:\n")
    for name, value in participant_parameters(settings.public_url):
        click.echo(f"  {name}={value}")
    click.echo(
        "\nGive every leg the same attributes: the first participant's decide for the whole conference.",
        err=True,
    )


@main.command()
def verify() -> None:
    """Fold every log again and compare it with its document. Ends with status 1 if any differs."""
    settings = _settings()
    _check_redis(settings)
    snapshots = Snapshots(_redis(settings), settings.shards)
    checked, wrong, outdated = 0, 0, 0
    for sid in snapshots.sids():
        checked += 1
        agrees = _agrees(snapshots, sid)
        if agrees is None:
            outdated += 1
        elif not agrees:
            wrong += 1
            click.echo(f"{sid}: its document is not what its log tells")
    if outdated:
        click.echo(f"{outdated} were folded by another release, and are folded again when their next callbacks come")
    click.echo(f"{checked - outdated} conferences folded again, {wrong} differ")
    sys.exit(1 if wrong else 0)


@main.command()
@click.option("--dead-letters", is_flag=True, help="Every callback that was set aside.")
def replay(dead_letters: bool) -> None:
    """Have callbacks folded again. Ends with status 1 if some are set aside once more, or still wait."""
    if not dead_letters:
        raise click.ClickException("Say what is to be folded again: --dead-letters")
    settings = _settings()
    _check_redis(settings)
    redis = _redis(settings)
    snapshots, inbox = Snapshots(redis, settings.shards), Inbox(redis, settings.shards)
    began = time.time_ns() // 1_000_000
    sent, last = 0, {}
    for shard, letter_id, letter in snapshots.letters():
        entry = inbox.send_again(shard, letter_id, letter.callback.body if letter.entry else letter.callback)
        if entry is not None:
            sent, last[shard] = sent + 1, entry
    click.echo(f"{sent} sent again")
    deadline = time.monotonic() + FOLDED_WITHIN
    while _some_wait(inbox, last):
        if time.monotonic() > deadline:
            raise click.ClickException("They still wait to be folded. Is a worker running, and what does its log say?")
        time.sleep(0.1)
    again = Counter(letter.reason for _, _, letter in snapshots.letters() if letter.set_aside_at >= began)
    for reason, count in again.most_common():
        click.echo(f"{count} set aside once more: {reason}")
    sys.exit(1 if again else 0)


@main.command()
@click.argument("conference", required=False)
@click.option("--all-open", is_flag=True, help="Every conference that has not ended, as far as we know.")
def reconcile(conference: str | None, all_open: bool) -> None:
    """Have one conference, or every open one, looked at once through Twilio's REST API. A worker does it soon."""
    if (conference is None) != all_open:
        raise click.ClickException("Say which: a conference's sid, or --all-open")
    if conference is not None and not is_sid("CF", conference):
        raise click.ClickException("That is no conference sid: expected CF and 32 hexadecimal digits.")
    settings = _settings()
    if not settings.reconcile:
        raise click.ClickException("OFFHOOK_RECONCILE is off: no worker looks at Twilio.")
    logins = settings.logins()
    _check_redis(settings)
    redis = _redis(settings)
    snapshots, looks = Snapshots(redis, settings.shards), Looks(redis, settings.shards)
    if conference is not None:
        [raw] = snapshots.headers([conference])
        if raw is None:
            raise click.ClickException(f"No conference {conference} is known here.")
        if read_header(raw).account_sid not in logins:
            raise click.ClickException("No Auth Token is configured for its account: Twilio would not let us in.")
        sids = [conference]
    else:
        sids = [header.sid for status in LIVE for header in snapshots.all_of(status) if header.account_sid in logins]
    looks.ask(sids, "operator", time.time_ns() // 1_000_000, by=ON_COMMAND)
    click.echo(f"{len(sids)} due, at most {settings.reconcile_rate:g} requests a second and account")


def _some_wait(inbox: Inbox, last: Mapping[int, bytes]) -> bool:
    """Whether any shard's inbox still has an entry up to the one that is named."""
    backlog = inbox.backlog() if last else []
    return any((oldest := backlog[shard].oldest_id) and not is_behind(oldest, entry) for shard, entry in last.items())


def _agrees(snapshots: Snapshots, sid: str) -> bool | None:
    """Whether a document is what its log tells; None: another release has folded it.

    Documents and logs are committed together; a change between the two reads is looked at once more.
    """
    for _ in range(3):
        kept, version, _ = snapshots.load({sid: None})[sid]
        if version != fold.VERSION:
            return None
        told = fold.fold(_readable(snapshots, sid))
        ours = kept.header
        header = replace(told.header, **{name: getattr(ours, name) for name in UNDETERMINED})
        written = document(encode(header), map(encode, told.in_order()))
        if written == document(encode(kept.header), map(encode, kept.in_order())):
            return True
    return False


def _readable(snapshots: Snapshots, sid: str) -> Iterator[Event]:
    """A log's events. What an earlier release could read and this one cannot is passed over, as in every fold."""
    for entry in snapshots.log(sid):
        with suppress(Unusable):
            yield read_filed(entry.callback, sid)


def _settings(environ: dict[str, str] | None = None) -> Settings:
    try:
        return from_env(os.environ if environ is None else environ)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error


def _redis(settings: Settings) -> Redis:
    """The Redis of the settings, or the one that `offhook run` has started in the data directory."""
    redis = connect(settings.redis_url or embedded.url(settings.data_dir), patience=PATIENCE)
    try:
        redis.ping()
    except RedisError as error:
        where = "at REDIS_URL" if settings.redis_url else f"in {settings.data_dir}; is `offhook run` running?"
        raise click.ClickException(f"No Redis answers {where} ({type(error).__name__}: {error})") from error
    return redis


@contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """Two at once on the same files would ruin them."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (data_dir / "lock").open("w")
    except OSError as error:
        raise click.ClickException(f"OFFHOOK_DATA_DIR: {data_dir} cannot be written: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise click.ClickException(
                f"Another Offhook is running on {data_dir}. Stop it, or give this one its own OFFHOOK_DATA_DIR."
            ) from None
        yield


def _demo_account(settings: Settings, environ: dict[str, str]) -> str:
    """Give the demo an account and a key that last as long as the data directory. Returns the key, `name:secret`."""
    demo = _read_demo(settings)
    if demo is None:
        demo = {
            "sid": f"AC{secrets.token_hex(16)}",
            "token": secrets.token_hex(16),
            "key": secrets.token_hex(12),
        }
        file = settings.data_dir / DEMO
        file.touch(mode=0o600)
        file.write_text(json.dumps(demo))
    if not settings.accounts:
        environ |= {"TWILIO_ACCOUNT_SID": demo["sid"], "TWILIO_AUTH_TOKEN": demo["token"]}
        environ.pop("PUBLIC_URL", None)
    key = f"demo:{demo['key']}:control"
    environ["OFFHOOK_API_KEYS"] = ",".join(filter(None, [environ.get("OFFHOOK_API_KEYS"), key]))
    return f"demo:{demo['key']}"


def _read_demo(settings: Settings) -> dict[str, str] | None:
    """The account (`sid`, `token`) and the key that the demo has in this data directory."""
    try:
        demo: dict[str, str] = json.loads((settings.data_dir / DEMO).read_text())
    except FileNotFoundError:
        return None
    return demo


def _demo_api(environ: dict[str, str]) -> list[str]:
    """Have the demo play Twilio's REST API too, unless the operator has named one. Returns options of `simulate`."""
    if environ.get("TWILIO_API_BASE_URL"):
        return []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environ["TWILIO_API_BASE_URL"] = f"http://127.0.0.1:{port}"
    environ.setdefault("OFFHOOK_ADOPT", "off")  # whoever plays Twilio begins after us, and with nothing
    return ["--api", "--api-port", str(port)]


def _check_free(host: str, port: int) -> None:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            raise click.ClickException(
                f"Cannot listen on {host}:{port}: {error.strerror}. "
                + ("Set PORT to a free one, or stop what has it." if error.errno == errno.EADDRINUSE else "See --host.")
            ) from error


def _check_redis(settings: Settings) -> None:
    try:
        claim_layout(_redis(settings), settings.shards)
    except WrongLayout as error:
        raise click.ClickException(str(error)) from error


def _check_durability(settings: Settings) -> None:
    if wrong := examine(_redis(settings), settings.durability).sentences:
        raise click.ClickException(
            f"The Redis at REDIS_URL is not what OFFHOOK_DURABILITY={settings.durability} asks for. {' '.join(wrong)} "
            "OFFHOOK_DURABILITY=memory takes any Redis, and may lose callbacks that were acknowledged."
        )


def _valkey(settings: Settings, environ: dict[str, str]) -> Process:
    try:
        command = embedded.command(settings.data_dir)
    except embedded.NoServer as error:
        raise click.ClickException(str(error)) from error
    redis = connect(embedded.url(settings.data_dir), patience=1.0)

    def ready() -> bool:
        try:
            claim_layout(redis, settings.shards)
        except RedisError:
            return False
        except WrongLayout as error:
            raise click.ClickException(str(error)) from error
        return True

    return Process("valkey", command, environ, ready=ready)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 - our own http address
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _own_key(settings: Settings) -> tuple[str, bytes] | None:
    """Name and secret of the key that shows the most: one that may do everything, else the main account's."""
    for key in settings.api_keys:
        if key.scope == "control" and key.account is None:
            return key.name, key.secret
    login = next((account.login for account in settings.accounts.values() if account.login), None)
    return login and (login[0], login[1].secret)


def _one_use(base: str, redis: Redis, key: tuple[str, bytes]) -> str:
    """A link that signs in with this key, once. What is behind its # is in no request line, so in no proxy's log."""
    return f"{base}/sign-in#{Sessions(redis).ticket(*key)}"


def _greet(local: str, settings: Settings, demo_key: str | None) -> None:
    user = demo_key or '"$TWILIO_ACCOUNT_SID:$TWILIO_AUTH_TOKEN"'
    name, _, secret = (demo_key or "").partition(":")
    key = (name, secret.encode()) if demo_key else _own_key(settings)
    bench = Path(sys.argv[0]).name if Path(sys.argv[0]).name == "offhook" else "offhook"
    command = Path(sys.executable).with_name(bench)
    shown = command.relative_to(Path.cwd()) if command.is_relative_to(Path.cwd()) else command
    data_dir = "" if settings.data_dir == Path(".offhook").absolute() else f"OFFHOOK_DATA_DIR={settings.data_dir} "
    look = f"{local}/sign-in\n"
    with suppress(RedisError, click.ClickException):  # Redis was there a moment ago, and all the rest runs
        if key:
            look = f"{_one_use(local, _redis(settings), key)}\n"
            look += f"          works once, within an hour; for another: {data_dir}{shown} link --url {local}\n"
    click.echo(
        f"\nOffhook is running{' with simulated conferences' if demo_key else ''}.\n\n"
        f"  look    {look}"
        f"  ask     curl -u {user} '{local}/api/conferences?status=in-progress'\n"
        f"  Twilio  curl -u {user} '{local}{accounts_path(next(iter(settings.accounts)))}/Conferences.json'\n"
        f"  follow  {data_dir}{shown} tail\n"
        f"  stop    Ctrl-C\n"
    )
    if demo_key is None:
        url = settings.public_url or "https://where-twilio-reaches-this"
        click.echo(
            f"Twilio's status callbacks belong at {url}/webhooks/twilio; `offhook twiml ROOM` prints them ready.\n"
        )


if __name__ == "__main__":
    main()
