"""python's http.client against a sidecar: http_client.py UPSTREAM_PORT SIDECAR_PORT, both on 127.0.0.1.

What comes through the sidecar must equal what the upstream says to a direct call. Exits with the first
difference.
"""

import http.client
import socket
import sys

upstream, sidecar = (int(port) for port in sys.argv[1:3])
HOST = {"Host": "any.example"}
PATIENCE_S = 60


def connect(port):
    return http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)


def ask(conn, method, target, **more):
    conn.request(method, target, headers={**HOST, **more.pop("headers", {})}, **more)
    answer = conn.getresponse()
    return answer, answer.read()


def raw(request):
    sock = socket.create_connection(("127.0.0.1", sidecar), timeout=PATIENCE_S)
    sock.sendall(request)
    return sock, sock.makefile("rb")


def head(reader):
    lines = []
    while (line := reader.readline()) not in (b"\r\n", b""):
        lines.append(line.rstrip())
    return lines


direct, meshed = connect(upstream), connect(sidecar)
for target in ("/bytes/0", "/bytes/1", "/bytes/70001", "/chunked/0", "/chunked/300000", "/close/100000"):
    wanted, got = ask(direct, "GET", target), ask(meshed, "GET", target)
    assert got[0].status == 200 and got[1] == wanted[1], f"{target}: {len(got[1])} bytes"

sock_before = ask(meshed, "GET", "/bytes/5") and meshed.sock
for size in (0, 17, 65536, 3):
    ask(meshed, "GET", f"/bytes/{size}")
assert meshed.sock is sock_before, "the connection was not kept"

answer, body = ask(meshed, "HEAD", "/bytes/12345")
assert (answer.getheader("content-length"), body) == ("12345", b""), "HEAD"
assert ask(meshed, "GET", "/bytes/3")[0].status == 200, "after HEAD"

upload = bytes(n % 251 for n in range(200_000))
assert ask(meshed, "POST", "/echo", body=upload)[1] == upload, "an upload by length"
pieces = (upload[at : at + 7777] for at in range(0, len(upload), 7777))
assert ask(meshed, "POST", "/echo", body=pieces, encode_chunked=True)[1] == upload, "an upload in chunks"

sock, reader = raw(b"POST /echo HTTP/1.1\r\nHost: any.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
assert head(reader)[0] == b"HTTP/1.1 100 Continue", "leave to send"
sock.sendall(b"hello")
assert head(reader)[0].startswith(b"HTTP/1.1 200 ") and reader.read(5) == b"hello", "after leave to send"

sock, reader = raw(
    b"GET /websocket HTTP/1.1\r\nHost: any.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
assert head(reader)[0].startswith(b"HTTP/1.1 101 "), "an upgrade"
for frame in (b"\x81\x85\x01\x02\x03\x04abcde", upload):
    sock.sendall(frame)
    assert reader.read(len(frame)) == frame, "frames"
sock.sendall(b"last words")
sock.shutdown(socket.SHUT_WR)
assert reader.read() == b"last words", "after the half-close"

tunnel = connect(sidecar)
tunnel.set_tunnel("any.example", 80)
for size in (5, 70001):
    assert ask(tunnel, "GET", f"/bytes/{size}")[1] == ask(connect(upstream), "GET", f"/bytes/{size}")[1], "in a tunnel"
