"""Raw bytes against the real web server: each gets a clear refusal, and no log line keeps what was in it."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from random import Random
from urllib.parse import urlencode

import pytest

from tests.cast import ANNA, said
from tests.system.house import House
from tests.web.conftest import signature
from tests.web.hostile import CASES, SEED

FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
POST = b"POST /webhooks/twilio HTTP/1.1\r\nHost: x\r\n" + FORM
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
SECOND = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
"""What somebody would like to smuggle in: whatever answers it says that it is alive."""
CHUNKED = b"Transfer-Encoding: chunked\r\n"
BIG = b"%x\r\n" % 70_000 + b"a" * 70_000 + b"\r\n0\r\n\r\n"

REFUSED = {
    "length and chunks": POST + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + SECOND,
    "chunks and length": POST + CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n" + SECOND,
    "length 0 and chunks": POST + b"Content-Length: 0\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + SECOND,
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab" + SECOND,
    "twice the same length": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab" + SECOND,
    "two lengths in one": POST + b"Content-Length: 1, 2\r\n\r\nab" + SECOND,
    "a length with a sign": POST + b"Content-Length: +2\r\n\r\nab" + SECOND,
    "a negative length": POST + b"Content-Length: -2\r\n\r\nab" + SECOND,
    "a length in hexadecimal": POST + b"Content-Length: 0x2\r\n\r\nab" + SECOND,
    "a length with an underscore": POST + b"Content-Length: 1_0\r\n\r\nab" + SECOND,
    "a length in other digits": POST + "Content-Length: \u0662\r\n\r\nab".encode() + SECOND,
    "an empty length": POST + b"Content-Length: \r\n\r\nab" + SECOND,
    "a length of thousands of digits": POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nab" + SECOND,
    "chunks, said with a tab": POST + b"Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n",
    "chunks, said twice": POST + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n" + SECOND,
    "chunks and identity": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SECOND,
    "identity": POST + b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nab" + SECOND,
    "chunks and another encoding": POST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n"
    + SECOND,
    "an encoding that is none": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SECOND,
    "an encoding in quotes": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n' + SECOND,
    "an encoding with a form feed": POST + b"Transfer-Encoding: chunked\x0c\r\n\r\n0\r\n\r\n" + SECOND,
    "an encoding behind a space": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SECOND,
    "an encoding with an underscore": POST + b"Transfer_Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
    "a length with an underscore in its name": POST + b"Content_Length: 2\r\nContent-Length: 0\r\n\r\n",
    "chunks in HTTP/1.0": POST.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n0\r\n\r\n" + SECOND,
    "a chunk that is shorter than it says": POST + CHUNKED + b"\r\n5\r\nab\r\n0\r\n\r\n" + SECOND,
    "a chunk that is longer than it says": POST + CHUNKED + b"\r\n2\r\nabcd\r\n0\r\n\r\n" + SECOND,
    "a chunk size that is none": POST + CHUNKED + b"\r\nZZ\r\nFrom=%2B15550123456\r\n" + SECOND,
    "a chunk size with 0x": POST + CHUNKED + b"\r\n0x2\r\nab\r\n0\r\n\r\n" + SECOND,
    "a chunk size with a sign": POST + CHUNKED + b"\r\n+2\r\nab\r\n0\r\n\r\n" + SECOND,
    "a negative chunk size": POST + CHUNKED + b"\r\n-2\r\nab\r\n0\r\n\r\n" + SECOND,
    "a chunk size with spaces": POST + CHUNKED + b"\r\n 2 \r\nab\r\n0\r\n\r\n" + SECOND,
    "a chunk size beyond all bounds": POST + CHUNKED + b"\r\n" + b"f" * 40 + b"\r\nab\r\n0\r\n\r\n" + SECOND,
    "a chunk size without end": POST + CHUNKED + b"\r\n" + b"0" * 20_000 + b"2\r\nab\r\n0\r\n\r\n" + SECOND,
    "a chunk extension": POST + CHUNKED + b"\r\n2;" + b"x" * 20_000 + b"\r\nab\r\n0\r\n\r\n",
    "a chunk extension over two lines": POST + CHUNKED + b"\r\n2;a\nb\r\nab\r\n0\r\n\r\n" + SECOND,
    "chunks ended by line feeds": POST + CHUNKED + b"\r\n2\nab\n0\n\n" + SECOND,
    "a chunk without its line end": POST + CHUNKED + b"\r\n2\r\nab0\r\n\r\n" + SECOND,
    "trailers that say a length": POST + CHUNKED + b"\r\n0\r\nContent-Length: 50\r\n\r\n",
    "chunks of more than 64 KiB": POST + CHUNKED + b"\r\n" + BIG,
    "chunks cut off": POST + CHUNKED + b"\r\n5\r\nFrom=",
    "a line feed alone": b"POST /webhooks/twilio HTTP/1.1\nHost: x\nContent-Length: 0\n\n" + SECOND,
    "a carriage return alone": b"GET /api/stats HTTP/1.1\rHost: x\r\r" + SECOND,
    "a folded header": POST + b"X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n" + SECOND,
    "a folded length": POST + b"Content-Length:\r\n 0\r\n\r\n" + SECOND,
    "a header that begins with a space": b"GET /api/stats HTTP/1.1\r\n Host: x\r\n\r\n" + SECOND,
    "a space in a header's name": b"GET /api/stats HTTP/1.1\r\nHost: x\r\nX A: b\r\n\r\n" + SECOND,
    "a header without a name": b"GET /api/stats HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n" + SECOND,
    "a header without a colon": b"GET /api/stats HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n" + SECOND,
    "a NUL in a header": b"GET /api/stats HTTP/1.1\r\nHost: x\r\nX-A: a\0b\r\n\r\n" + SECOND,
    "a NUL in a header's name": b"GET /api/stats HTTP/1.1\r\nHost: x\r\nX\0A: b\r\n\r\n" + SECOND,
    "a NUL in the target": b"GET /api/stats\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "two request lines": b"GET /api/stats HTTP/1.1 GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a broken request line": b"GET /webhooks/twilio?From=+15550123456 and more HTTP/1.1\r\nHost: x\r\n\r\n" + SECOND,
    "no version": b"GET /api/stats\r\n\r\n",
    "a version that is none": b"GET /api/stats HTTP/9.9\r\nHost: x\r\n\r\n" + SECOND,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a method in small letters": b"get /api/stats HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method with signs": b"GE(T /api/stats HTTP/1.1\r\nHost: x\r\n\r\n" + SECOND,
    "a tunnel": b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target of another host": b"GET http://evil.example/api/stats HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target that is a star": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target without a slash": b"GET api/stats HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target without end": b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n" + SECOND,
    "a header without end": b"GET /api/stats HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 100_000 + b"\r\n\r\n" + SECOND,
    "headers without number": b"GET /api/stats HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 500 + b"\r\n" + SECOND,
    "a name that is not ASCII": b"GET /api/stats HTTP/1.1\r\nHost: x\r\nAuthorization: Basic \xff\xff\r\n\r\n",
    "a raw byte in the query": b"GET /webhooks/twilio?From=+15550123456\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "a body cut off": POST + b"Content-Length: 100\r\nConnection: close\r\n\r\nFrom=+15550123456",
    "TLS": bytes.fromhex("16030100a5010000a10303") + b"\0" * 160,
    "nothing but line ends": b"\r\n" * 50,
    "another script name": b"GET /api/stats HTTP/1.1\r\nHost: x\r\nSCRIPT_NAME: /api\r\n\r\n",
    "another's name": b"GET /api/stats HTTP/1.1\r\nHost: x\r\nREMOTE_USER: operator\r\nX-Remote-User: operator\r\n\r\n",
    "an expectation": POST + b"Expect: 200-maybe\r\nContent-Length: 2\r\n\r\nab",
    "an upgrade": b"GET /api/stats HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
}
"""Each is to be refused, and all that follows it on its connection with it."""
UNKNOWN_ENCODINGS = {"chunks and another encoding", "an encoding that is none", "an encoding in quotes"}
"""To be refused with 501 (RFC 9112, 6.1), the one status of its kind that is nobody's fault here."""


def answers(house: House, request: bytes) -> list[tuple[int, bytes]]:
    """Status and the rest of each answer that raw bytes get until the server hangs up."""
    with socket.create_connection(("127.0.0.1", house.port), timeout=20) as connection:
        said_back = b""
        with suppress(OSError):  # it may hang up before it has heard everything
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while more := connection.recv(65536):
                said_back += more
    pieces = [piece for piece in re.split(rb"(?=HTTP/1\.[01] \d{3} )", said_back) if piece]
    return [(int(piece[9:12]), piece) for piece in pieces]


def test_hostile_bytes_get_clear_refusals_and_leave_no_trace_in_the_log(open_house):
    house = open_house(WEB_CONCURRENCY="1").ready()
    webs = house.processes()["web"]
    for name, request in REFUSED.items():
        got = answers(house, request)
        statuses = [status for status, _ in got]
        assert len(got) <= 1, f"{name}: {statuses}"
        assert all(400 <= status < 500 or (status == 501 and name in UNKNOWN_ENCODINGS) for status in statuses), name
        assert not any(b'"alive"' in told for _, told in got), f"{name}: what was smuggled in was answered"
    assert [status for status, _ in answers(house, SECOND * 3)] == [200, 200, 200], "this is how it should be"
    assert house.processes()["web"] == webs
    assert house.stop() == 0
    check_log(house)


@pytest.mark.timeout(120 + CASES // 100)
def test_whatever_bytes_come_no_process_falls_over_and_the_next_is_served(open_house):
    house = open_house(WEB_CONCURRENCY="1").ready()
    webs, rng = house.processes()["web"], Random(SEED)
    told = said("participant-join", ANNA, number=1, second=0, From="+15550123456")
    body = urlencode(told).encode()
    signed = signature("http://x/webhooks/twilio", told, house.environ["TWILIO_AUTH_TOKEN"]).encode()
    genuine = POST + b"X-Twilio-Signature: %b\r\nContent-Length: %d\r\n\r\n%b" % (signed, len(body), body)
    assert [status for status, _ in answers(house, genuine)] == [204]
    sources = [genuine, genuine, genuine, *REFUSED.values()]
    number = CASES // 20
    for case in range(number):
        request = bytearray(rng.choice(sources)[:5000])
        for _ in range(rng.randrange(1, 6)):
            at, piece = rng.randrange(len(request)), rng.choice(PIECES) or rng.randbytes(rng.randrange(1, 9))
            request[at : at + rng.choice([0, 1, len(piece)])] = piece
        for status, _ in answers(house, bytes(request)):
            assert status in (100, 200, 204, 303, 501) or 400 <= status < 500, (SEED, case, status, bytes(request))
    assert [status for status, _ in answers(house, genuine)] == [204]
    assert house.processes()["web"] == webs
    print(f"{number} raw requests, seed {SEED}")
    assert house.stop() == 0
    check_log(house)


PIECES = [
    *(
        b"",
        b"",
        b"",
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"\xff",
        b"%",
        b"chunked",
        b"Content-Length: 7\r\n",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"0\r\n\r\n",
        SECOND,
        b"HTTP/1.1",
        b"GET ",
        b"\r\n\r\n",
        b"Expect: 100-continue\r\n",
    ),
]
"""What is put in somewhere; nothing stands for any bytes."""


def check_log(house: House) -> None:
    """Nothing of what was sent is in it, and nothing of ours that went wrong."""
    log = house.log.read_bytes()
    for word in (b"15550123456", b"Traceback", b"exc_value", b'"level": "error"'):
        assert word not in log
