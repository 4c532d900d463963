"""Raw bytes against the real web server: each gets a clear refusal, and no log line keeps what was in it."""

from __future__ import annotations

import socket

from tests.system.house import House

POST = b"POST /webhooks/twilio HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"

REQUESTS = {
    b"chunks that are none": (POST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nFrom=%2B15550123456\r\n", {400}),
    b"a body cut off": (POST + b"Content-Length: 100\r\nConnection: close\r\n\r\nFrom=+15550123456", {400, 403}),
    b"a name that is not ASCII": (
        b"GET /api/stats HTTP/1.1\r\nHost: x\r\nAuthorization: Basic \xff\xff\r\n\r\n",
        {401},
    ),
    b"another script name": (b"GET /healthz HTTP/1.1\r\nHost: x\r\nSCRIPT_NAME: /zzz\r\n\r\n", {200, 400}),
    b"a raw byte in the query": (b"GET /webhooks/twilio?From=+15550123456\xff HTTP/1.1\r\nHost: x\r\n\r\n", {400, 403}),
    b"a broken request line": (b"GET /webhooks/twilio?From=+15550123456 and more HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    b"two lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", {400}),
    b"length and chunks": (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
}


def answer(house: House, request: bytes) -> int:
    """The status that raw bytes get."""
    with socket.create_connection(("127.0.0.1", house.port), timeout=10) as connection:
        connection.sendall(request)
        if b"100" in request:
            connection.shutdown(socket.SHUT_WR)
        return int(connection.recv(4096).split(b" ", 2)[1])


def test_hostile_bytes_get_clear_refusals_and_leave_no_trace_in_the_log(open_house):
    house = open_house(WEB_CONCURRENCY="1").ready()
    for name, (request, expected) in REQUESTS.items():
        assert answer(house, request) in expected, name
    assert house.stop() == 0
    log = house.log.read_bytes()
    assert b"15550123456" not in log
    assert b"Traceback" not in log
    assert b"exc_value" not in log
