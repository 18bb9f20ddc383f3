"""Calls grpc_server.py until its input ends: grpc_paced.py ADDRESS:PORT AUTHORITY.

Each turn is a unary call and a message of a stream that lasts a second. The first call that fails ends it. Says
how many calls and messages went well.
"""

import sys
import threading
import time

import grpc

PAUSE_S = 0.02
STREAM_LASTS_S = 1.0

address, authority = sys.argv[1:]
options = [("grpc.default_authority", authority), ("grpc.enable_retries", 0)]
channel = grpc.insecure_channel(address, options=options)
unary = channel.unary_unary("/ringmesh.Interop/Unary")
duplex = channel.stream_stream("/ringmesh.Interop/Duplex")

over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()


def wanted(length):
    return length.to_bytes(4, "big")


def turns():
    """The requests of one stream, each sent as its turn comes, and the one that says it is through."""
    # By the clock and not by a number of turns: those take longer where there is little CPU.
    end = time.monotonic() + STREAM_LASTS_S
    while time.monotonic() < end and not over.is_set():
        yield wanted(16)
        time.sleep(PAUSE_S)
    yield b""


calls = messages = 0
lock = threading.Lock()


def stream():
    global messages
    while not over.is_set():
        for answer in duplex(turns(), timeout=60):
            assert len(answer) == 16, answer
            with lock:
                messages += 1


failed = []


def guarded(work):
    try:
        work()
    except Exception as error:  # Whatever it is, the test is to see it.
        failed.append(error)
        over.set()


streaming = threading.Thread(target=guarded, args=(stream,))
streaming.start()


def call():
    global calls
    while not over.is_set():
        assert len(unary(wanted(16), timeout=60)) == 16
        calls += 1
        time.sleep(PAUSE_S)


guarded(call)
streaming.join()
if failed:
    sys.exit(f"after {calls} calls and {messages} messages: {failed[0]!r}")
print(calls, messages)
