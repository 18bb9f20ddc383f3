"""The cases of gRPC's interop test (grpc/grpc doc/interop-test-descriptions.md) with grpcio against
grpc_server.py: grpc_client.py PORT, on 127.0.0.1.

Prints the name of each case that went well; the first that did not ends it. Not here: what needs
credentials of a cloud, and caching.
"""

import queue
import sys
import threading
import time

import grpc

from grpc_server import INITIAL, TRAILING, pattern

PATIENCE_S = 60
GZIP = grpc.Compression.Gzip
LARGE_REQUEST, LARGE_ANSWER = 271828, 314159
REQUESTS, ANSWERS = (27182, 8, 1828, 45904), (31415, 9, 2653, 58979)
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"

channel = grpc.insecure_channel(
    f"127.0.0.1:{sys.argv[1]}",
    options=[
        ("grpc.max_receive_message_length", -1),
        ("grpc.default_authority", "any.example"),
        # A call that fails here is to fail.
        ("grpc.enable_retries", 0),
    ],
)


def method(kind, name):
    return getattr(channel, kind)(f"/ringmesh.Interop/{name}")


empty, unary = method("unary_unary", "Empty"), method("unary_unary", "Unary")
collect, serve = method("stream_unary", "Collect"), method("unary_stream", "Serve")
duplex = method("stream_stream", "Duplex")


def request(wanted, length):
    """A request of `length` bytes in all that asks for `wanted`."""
    return wanted.to_bytes(4, "big") + pattern(length)[4:]


def same(found, expected, what=""):
    if found != expected:
        found, expected = repr(found)[:200], repr(expected)[:200]
        raise AssertionError(f"{what}: {found} and not {expected}")


def refused(call, code, message=None):
    try:
        call()
    except grpc.RpcError as error:
        same(error.code(), code, error.details())
        if message is not None:
            same(error.details(), message)
    else:
        raise AssertionError(f"it went well and did not end with {code}")


class Requests:
    """A stream of requests that the case feeds."""

    def __init__(self):
        self.waiting = queue.Queue()

    def __iter__(self):
        return iter(self.waiting.get, None)

    def send(self, one):
        self.waiting.put(one)

    def end(self):
        self.waiting.put(b"")
        self.waiting.put(None)


def empty_unary():
    same(empty(b"", timeout=PATIENCE_S), b"")


def large_unary(**options):
    answer = unary(request(LARGE_ANSWER, LARGE_REQUEST), timeout=PATIENCE_S, **options)
    same(answer, pattern(LARGE_ANSWER))


def larger_than_every_window():
    answer = unary(request(3_000_001, 2_000_003), timeout=PATIENCE_S)
    same(answer, pattern(3_000_001))


def client_compressed_unary():
    large_unary(compression=GZIP)


def server_compressed_unary():
    large_unary(metadata=(("x-answer-compressed", "1"),))


def client_streaming(**options):
    answer = collect(map(pattern, REQUESTS), timeout=PATIENCE_S, **options)
    same(answer, str(sum(REQUESTS)).encode())


def client_compressed_streaming():
    client_streaming(compression=GZIP)


def server_streaming(**options):
    answers = serve(",".join(map(str, ANSWERS)).encode(), timeout=PATIENCE_S, **options)
    same(list(answers), [pattern(length) for length in ANSWERS])


def server_compressed_streaming():
    server_streaming(metadata=(("x-answer-compressed", "1"),))


def ping_pong():
    requests = Requests()
    answers = duplex(iter(requests), timeout=PATIENCE_S)
    # Each answer has to come while the stream of requests is open.
    for asked, length in zip(REQUESTS, ANSWERS):
        requests.send(request(length, asked))
        same(next(answers), pattern(length))
    requests.end()
    same(list(answers), [])


def empty_stream():
    same(list(duplex(iter(()), timeout=PATIENCE_S)), [])


def custom_metadata():
    sent = ((INITIAL, "test_initial_metadata_value"), (TRAILING, b"\x00\x0a\x0b\x0a\x0b\xff"))
    answer, call = unary.with_call(request(LARGE_ANSWER, LARGE_REQUEST), timeout=PATIENCE_S, metadata=sent)
    same(answer, pattern(LARGE_ANSWER))
    same(dict(call.initial_metadata())[INITIAL], sent[0][1])
    same(dict(call.trailing_metadata())[TRAILING], sent[1][1])
    call = duplex(iter((request(5, 4), b"")), timeout=PATIENCE_S, metadata=sent)
    same(dict(call.initial_metadata())[INITIAL], sent[0][1], "of a stream")
    same(list(call), [pattern(5)])
    same(dict(call.trailing_metadata())[TRAILING], sent[1][1], "of a stream")


def status_code_and_message():
    status = method("unary_unary", "Status")
    for code in grpc.StatusCode:
        if code is not grpc.StatusCode.OK:
            message = f"test status message {code.value[0]}"
            refused(lambda: status(f"{code.value[0]}:{message}".encode(), timeout=PATIENCE_S), code, message)


def special_status_message():
    status = method("unary_unary", "Status")
    refused(lambda: status(f"2:{SPECIAL}".encode(), timeout=PATIENCE_S), grpc.StatusCode.UNKNOWN, SPECIAL)


def unimplemented_method():
    absent = method("unary_unary", "Absent")
    refused(lambda: absent(b"", timeout=PATIENCE_S), grpc.StatusCode.UNIMPLEMENTED)


def unimplemented_service():
    absent = channel.unary_unary("/ringmesh.Absent/Empty")
    refused(lambda: absent(b"", timeout=PATIENCE_S), grpc.StatusCode.UNIMPLEMENTED)


def told(counter):
    return int(method("unary_unary", counter)(b"", timeout=PATIENCE_S))


def given_up():
    return told("GivenUp")


def until(counter, count):
    end = time.monotonic() + PATIENCE_S
    while told(counter) < count:
        if time.monotonic() > end:
            raise AssertionError(f"the server's {counter} is {told(counter)}, not {count}")
        threading.Event().wait(0.005)


def until_given_up(count):
    """The server has to hear of it, and not only this side to stop waiting."""
    until("GivenUp", count)


def cancel_after_begin():
    begun, before = told("Begun"), given_up()
    call = method("unary_unary", "Sleep").future(b"", timeout=PATIENCE_S)
    until("Begun", begun + 1)
    call.cancel()
    same(call.code(), grpc.StatusCode.CANCELLED)
    until_given_up(before + 1)
    before = given_up()
    requests = Requests()
    call = collect.future(iter(requests), timeout=PATIENCE_S)
    call.cancel()
    requests.end()
    same(call.code(), grpc.StatusCode.CANCELLED)
    same(given_up() >= before, True)


def cancel_after_first_response():
    before, requests = given_up(), Requests()
    call = duplex(iter(requests), timeout=PATIENCE_S)
    requests.send(request(ANSWERS[0], REQUESTS[0]))
    same(next(call), pattern(ANSWERS[0]))
    call.cancel()
    requests.end()
    same(call.code(), grpc.StatusCode.CANCELLED)
    until_given_up(before + 1)


def timeout_on_sleeping_server():
    before = given_up()
    sleeping = method("unary_unary", "Sleep")
    refused(lambda: sleeping(b"", timeout=1.5), grpc.StatusCode.DEADLINE_EXCEEDED)
    until_given_up(before + 1)
    requests = Requests()
    requests.send(request(1, 27182))
    call = duplex(iter(requests), timeout=1.5)
    refused(lambda: list(call), grpc.StatusCode.DEADLINE_EXCEEDED)
    requests.end()


def deadline_is_passed_on():
    """Reduced by what each sidecar took: in whole milliseconds, which grpcio does not send of so long a time."""
    left = int(method("unary_unary", "Remaining")(b"", timeout=20)) / 1e6
    if not 0 < left < 20:
        raise AssertionError(f"{left} s are left of 20")


def many_at_once():
    """One connection, more calls than would fit into one window."""
    calls = [unary.future(request(length, 50_000), timeout=PATIENCE_S) for length in range(1_000, 300_000, 4_999)]
    for call, length in zip(calls, range(1_000, 300_000, 4_999)):
        same(call.result(), pattern(length))


for case in (
    empty_unary,
    large_unary,
    larger_than_every_window,
    client_compressed_unary,
    server_compressed_unary,
    client_streaming,
    client_compressed_streaming,
    server_streaming,
    server_compressed_streaming,
    ping_pong,
    empty_stream,
    custom_metadata,
    status_code_and_message,
    special_status_message,
    unimplemented_method,
    unimplemented_service,
    cancel_after_begin,
    cancel_after_first_response,
    timeout_on_sleeping_server,
    deadline_is_passed_on,
    many_at_once,
):
    begun = time.monotonic()
    case()
    print(f"{case.__name__} {(time.monotonic() - begun) * 1e3:.0f} ms", flush=True)
channel.close()
