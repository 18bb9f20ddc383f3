"""A gRPC server for interop cases, made with grpcio and without generated code: messages are bytes.

Prints its port; ends when its input does. The methods of `ringmesh.Interop`:

  Empty       nothing for nothing
  Unary       a request that begins with four bytes, a length: that many bytes
  Collect     a stream: the sum of its lengths, as text
  Serve       lengths, as text with commas: a stream of messages so long
  Duplex      a stream of Unary's requests: its answers, each as soon as its request is there; an
              empty request says that the stream is through
  Status      `code:message`: a call that ends so
  Sleep       nothing, until the call is given up
  Remaining   the time the call may still take, microseconds as text
  Begun       how many calls of Sleep have come
  GivenUp     how many calls of Duplex and Sleep were given up before they were through
  Serving     `yes` or `no`: what `grpc.health.v1.Health/Check` says of this service and the server from now on

Whoever sends `x-echo-initial` or `x-echo-trailing-bin` gets it back, as its name says.
"""

import array
import sys
import threading
from concurrent import futures

import grpc

SERVICE = "ringmesh.Interop"
INITIAL, TRAILING = "x-echo-initial", "x-echo-trailing-bin"
WORKERS = 32

given_up, begun, lock = 0, 0, threading.Lock()
is_serving = True


def note_given_up():
    global given_up
    with lock:
        given_up += 1


def pattern(length):
    """Bytes without a period that frames could hide."""
    numbers = array.array("I", range(length // 4 + 1))
    return numbers.tobytes()[:length]


def wanted(request):
    return pattern(int.from_bytes(request[:4], "big"))


def with_metadata(method):
    def run(request, context):
        sent = dict(context.invocation_metadata())
        if INITIAL in sent:
            context.send_initial_metadata(((INITIAL, sent[INITIAL]),))
        if TRAILING in sent:
            context.set_trailing_metadata(((TRAILING, sent[TRAILING]),))
        if "x-answer-compressed" in sent:
            context.set_compression(grpc.Compression.Gzip)
        return method(request, context)

    return run


def collect(requests, _):
    return str(sum(len(request) for request in requests)).encode()


def serve(request, _):
    for length in request.decode().split(","):
        yield pattern(int(length))


def duplex(requests, context):
    through = True

    def end():
        if not through:
            note_given_up()

    context.add_callback(end)
    for request in requests:
        # The loop's end says nothing: of a call that was given up grpcio may see the end of the requests first.
        through = not request
        if request:
            yield wanted(request)


def status(request, context):
    code, _, message = request.decode().partition(":")
    code = next(known for known in grpc.StatusCode if known.value[0] == int(code))
    context.abort(code, message)


def sleep(_, context):
    global begun
    with lock:
        begun += 1
    over = threading.Event()
    context.add_callback(over.set)
    over.wait()
    note_given_up()
    return b""


def remaining(_, context):
    left = context.time_remaining()
    return str(-1 if left is None or left > 1e6 else int(left * 1e6)).encode()


def serving(request, _):
    global is_serving
    is_serving = request == b"yes"
    return b""


def check(request, context):
    """HealthCheckRequest has the service's name as field 1, HealthCheckResponse the status: 1 is SERVING, 2 is not."""
    if request and (request[0] != 0x0A or request[1] != len(request) - 2):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no HealthCheckRequest")
    if request[2:].decode() not in ("", SERVICE):
        context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
    return b"\x08\x01" if is_serving else b"\x08\x02"


HANDLERS = {
    "Empty": grpc.unary_unary_rpc_method_handler(with_metadata(lambda request, _: request)),
    "Unary": grpc.unary_unary_rpc_method_handler(with_metadata(lambda request, _: wanted(request))),
    "Collect": grpc.stream_unary_rpc_method_handler(with_metadata(collect)),
    "Serve": grpc.unary_stream_rpc_method_handler(with_metadata(serve)),
    "Duplex": grpc.stream_stream_rpc_method_handler(with_metadata(duplex)),
    "Status": grpc.unary_unary_rpc_method_handler(with_metadata(status)),
    "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
    "Remaining": grpc.unary_unary_rpc_method_handler(remaining),
    "Begun": grpc.unary_unary_rpc_method_handler(lambda *_: str(begun).encode()),
    "GivenUp": grpc.unary_unary_rpc_method_handler(lambda *_: str(given_up).encode()),
    "Serving": grpc.unary_unary_rpc_method_handler(serving),
}
HEALTH = {"Check": grpc.unary_unary_rpc_method_handler(check)}

if __name__ == "__main__":
    server = grpc.server(
        futures.ThreadPoolExecutor(WORKERS),
        options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)],
    )
    services = {SERVICE: HANDLERS, "grpc.health.v1.Health": HEALTH}
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items())
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(grace=0).wait()
