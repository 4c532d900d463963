"""Flask lives here. What it needs is handed in; it knows no environment, no RQ, and not how to fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import structlog
from flask import Flask, Response, request
from redis import RedisError
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from app.events import Status
from app.store.attendance import Attendance
from app.store.feed import Feed
from app.store.inbox import Inbox
from app.store.looks import Looks
from app.store.promises import Promises
from app.store.sessions import Sessions
from app.store.snapshots import Snapshots
from app.store.spool import Spool
from app.twilio.signature import Key
from app.upstream.api import Twilio
from app.web import api, dashboard, failures, health, insights, metrics, openapi, rest, sign_in, stream
from app.web.access import Access, Grant
from app.web.answers import failure, guarded, with_headers
from app.web.control import Control
from app.web.fanout import Fanout
from app.web.intake import Intake
from app.web.refusals import Refusals
from app.web.upkeep import Upkeep
from app.web.webhook import LARGEST_BODY, PATH, Webhook

FANOUT = "offhook.fanout"
"""Under what name the application keeps what feeds its streams, for the web server to end them."""

WEBHOOK = "offhook.webhook"
"""And what takes callbacks in, for the web server to say when there are too many."""
UPKEEP = "offhook.upkeep"
"""And what is to be done beside answering."""

log = structlog.get_logger("offhook.web")


class Anything(BaseConverter):
    """The rest of a path, whatever is in it: labels may hold slashes and line breaks."""

    regex = r"[\s\S]+?"
    part_isolating = False


def create_app(
    *,
    inbox: Inbox,
    snapshots: Snapshots,
    feed: Feed,
    nudge: Callable[[], None],
    keys: Mapping[str, tuple[Key, ...]],
    parents: Mapping[str, str],
    api_keys: Mapping[str, Grant],
    public_url: str | None,
    twilio: Twilio,
    reconciles: bool = True,
    list_status: Status | None = None,
    url_hosts: frozenset[str] | None = None,
    prepare: Callable[[], None] = lambda: None,
    spool: Spool | None = None,
) -> Flask:
    """The WSGI application.

    `keys` are by account sid what may sign its callbacks; `parents` name the parent of a subaccount; `api_keys` are
    grants by name. `inbox`, `snapshots` and `feed` had better not share connections: readers must not keep callbacks
    waiting. `nudge` asks for a drain and may raise redis.RedisError. `public_url` is what Twilio was given, or
    None to believe each request. `twilio` is where control requests go, `reconciles` whether workers look there for
    what was lost. A Twilio-shaped list that is asked for no status shows those with `list_status`, None: all.
    `url_hosts` are those that control requests may name, None: any.
    `prepare` makes sure that callbacks are stored where they will be looked for; it raises redis.RedisError or
    `WrongLayout` where it cannot. `spool` is where callbacks go that Redis cannot take; it is emptied by what
    `extensions[UPKEEP]` does, which somebody has to run.
    """
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    app.url_map.strict_slashes = False  # a redirect would lose Twilio's parameters
    app.url_map.merge_slashes = False
    app.url_map.converters["anything"] = Anything
    refusals = Refusals(inbox.redis)
    sessions = Sessions(snapshots.redis)
    access = Access(keys, parents, api_keys, sessions, partial(refusals.note, "sign-in"))
    intake = Intake(inbox, nudge, prepare, spool)
    app.extensions[UPKEEP] = Upkeep(intake, refusals, Attendance(inbox.redis))
    control = Control(
        snapshots=snapshots,
        promises=Promises(inbox.redis),
        intake=intake,
        twilio=twilio,
        url_hosts=url_hosts,
        own_address=(public_url or "") + PATH,
    )
    app.register_blueprint(rest.create(snapshots=snapshots, access=access, control=control, list_status=list_status))
    app.register_blueprint(insights.create(snapshots=snapshots, access=access, public_url=public_url))
    reconcile = api.Reconciling(Looks(snapshots.redis, snapshots.shards), twilio.can_reach, reconciles)
    app.register_blueprint(
        api.create(inbox=inbox, snapshots=snapshots, access=access, refusals=refusals, reconcile=reconcile)
    )
    fanout = Fanout(feed, inbox)
    app.extensions[FANOUT] = fanout
    app.register_blueprint(stream.create(snapshots=snapshots, feed=feed, fanout=fanout, access=access))
    app.register_blueprint(sign_in.create(access=access, sessions=sessions, refusals=refusals))
    app.register_blueprint(dashboard.create(access=access))
    watched = Inbox(snapshots.redis, inbox.shards, mode=inbox.mode)
    app.register_blueprint(health.create(inbox=watched, spool=spool))
    app.register_blueprint(
        metrics.create(inbox=watched, snapshots=snapshots, access=access, refusals=refusals, spool=spool)
    )
    app.register_blueprint(openapi.create())
    webhook = Webhook(intake=intake, keys=keys, public_url=public_url, refusals=refusals)
    app.extensions[WEBHOOK] = webhook
    app.wsgi_app = webhook.ahead_of(app.wsgi_app)  # type: ignore[assignment, method-assign]  # as Flask has it wrapped
    app.register_error_handler(HTTPException, _refused)
    app.register_error_handler(RedisError, _away)
    app.register_error_handler(Exception, _broken)
    app.after_request(_guarded)
    return app


def _guarded(answer: Response) -> Response:
    if request.endpoint == "static":  # kept by browsers; and a worker's script stands under the headers it came with
        answer.headers["X-Content-Type-Options"] = "nosniff"
        return answer
    return guarded(answer)


def _refused(error: HTTPException) -> Response:
    if request.path.startswith(failures.TWILIOS):
        return failures.refused(error)
    return with_headers(failure(error.code or 500, error.description or error.name), error)


def _away(error: RedisError) -> Response:
    log.error("redis failed", error=type(error).__name__)
    answer = failure(503, "Redis does not answer, or cannot; try again shortly. /readyz says when it is back.")
    answer.headers["Retry-After"] = "2"
    return answer


def _broken(error: Exception) -> Response:
    log.exception("request failed", error=type(error).__name__)
    return failure(500, "Something is wrong inside Offhook; its log says what.")
