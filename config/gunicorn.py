"""The web server's numbers, each with its reason. `offhook web` adds address, port and number of processes."""

import resource
import socket
import sys
from contextlib import suppress
from functools import partial
from typing import Any

from gunicorn.glogging import Logger

GIVEN_UP_AFTER = 60_000
"""Milliseconds that a client may take nothing of what it is sent, as one that has lost its network does."""

# A request costs a greenlet, not a thread: two hundred stalled clients or open streams leave the others alone, where a
# thread pool stands still.
worker_class = "app.server.Worker"
worker_connections = 4000

# Longer than the idle time of the usual load balancers, so that they close first and no request meets a closed socket.
keepalive = 75

# Most answers take two waits for Redis at the very most. A control request may wait for Twilio longer than this; it is
# then cut off, its client does not learn what became of it, and a create is kept from being repeated. But idle
# connections are waited for as well, so no longer.
graceful_timeout = 5
timeout = 30

# Fresh processes now and then, never all at once; not so often that a flood spends its time starting them. Memory does
# not grow meanwhile (see bench, flatness).
max_requests = 1_000_000
max_requests_jitter = 100_000

# Twilio's GET callbacks carry all parameters in the request line.
limit_request_line = 8190
limit_request_fields = 64

# Nothing is to be steered through a socket in somebody's home directory.
control_socket_disable = True

# Twilio's requests are logged by what becomes of them; an access log would hold phone numbers from GET queries.
accesslog = None
errorlog = "-"
loglevel = "warning"


class Discreet(Logger):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's log, without what a malformed request held: that may be a GET callback with people's numbers."""

    def warning(self, msg: str, *args: object, **kwargs: object) -> None:
        """Log a warning; of an invalid request only from where it came."""
        if msg.startswith("Invalid request"):
            msg, args = "Invalid HTTP request from %s", args[:1]
        super().warning(msg, *args, **kwargs)


logger_class = Discreet


def post_worker_init(worker: Any) -> None:
    """Once a process has its application: let streams end when it is to stop, and let there be many."""
    webhook = worker.wsgi.extensions.get("offhook.webhook")
    if webhook is not None:
        webhook.admission = worker.admission
        worker.note = partial(webhook.refusals.note, "too many at once")
    fanout = worker.wsgi.extensions.get("offhook.fanout")
    if fanout is not None:  # what the benchmark compares with runs under these settings too
        fanout.stopping = lambda: not worker.alive
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # each stream is a file; not every system lets us have so many
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(few, min(most, 65536) if most > 0 else 65536), most))
    for listener in worker.sockets:
        if listener.family in (socket.AF_INET, socket.AF_INET6) and sys.platform == "linux":
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GIVEN_UP_AFTER)


# No header may move the application to another path, not even one that a proxy beside us has let through.
forwarder_headers = ""
