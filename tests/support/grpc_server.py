"""A gRPC server for the tests: real grpcio, messages as they come. Prints its port, then what it
notices, a line each."""

import json
import sys
import threading
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

refused = {}


def tell(line):
    print(line, flush=True)


def unary(request, context):
    return request


def meta(request, context):
    """What came, and metadata of its own before and behind the answer."""
    got = [[key, value if isinstance(value, str) else list(value)]
           for key, value in context.invocation_metadata()]
    context.send_initial_metadata((("x-early", "1"), ("x-early-bin", b"\x00\xff")))
    context.set_trailing_metadata((("x-late", "2"), ("x-late-bin", b"\xfe\x01")))
    return json.dumps(got).encode()


def left(request, context):
    return repr(context.time_remaining()).encode()


def fail(request, context):
    code, message = request.decode().split(" ", 1)
    context.abort(getattr(grpc.StatusCode, code), message)


def refuse(request, context):
    """UNAVAILABLE as often as the first byte says, for each of the rest."""
    seen = refused.get(request, 0)
    refused[request] = seen + 1
    if seen < request[0]:
        context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
    return b"%d" % (seen + 1)


def large(request, context):
    return b"x" * int(request)


def count(requests, context):
    """Of everything that it is sent."""
    messages = bytes_ = 0
    for request in requests:
        messages += 1
        bytes_ += len(request)
    return b"%d messages, %d bytes" % (messages, bytes_)


def repeat(request, context):
    """A stream of as many messages."""
    for number in range(int(request)):
        yield b"%d" % number


def echo(requests, context):
    """Each as it comes."""
    context.send_initial_metadata((("x-early", "1"),))
    for request in requests:
        yield request


def early(requests, context):
    """Answers and ends after the first, whatever else there is to come."""
    yield b"enough: " + next(requests)


def hang(request, context):
    """Until the caller has left."""
    gone = threading.Event()

    def leave():
        tell("cancelled")
        gone.set()

    # Not behind the wait: a caller may leave before it has begun.
    if not context.add_callback(leave):
        leave()
    tell("hangs")
    yield b"here"
    gone.wait()


def gaps(request, context):
    """Three messages, with half a second before the second and more before the third."""
    yield b"one"
    time.sleep(0.5)
    yield b"two"
    time.sleep(1.4)
    yield b"three"


def cut(request, context):
    """A message, and a failure."""
    yield b"one"
    context.abort(grpc.StatusCode.DATA_LOSS, "lost the rest")


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Meta": grpc.unary_unary_rpc_method_handler(meta),
    "Left": grpc.unary_unary_rpc_method_handler(left),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
    "Large": grpc.unary_unary_rpc_method_handler(large),
    "Count": grpc.stream_unary_rpc_method_handler(count),
    "Repeat": grpc.unary_stream_rpc_method_handler(repeat),
    "Echo": grpc.stream_stream_rpc_method_handler(echo),
    "Early": grpc.stream_stream_rpc_method_handler(early),
    "Hang": grpc.unary_stream_rpc_method_handler(hang),
    "Gaps": grpc.unary_stream_rpc_method_handler(gaps),
    "Cut": grpc.unary_stream_rpc_method_handler(cut),
}

unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), options=unlimited)
for service in ["test.Echo", "test.Other"]:
    handler = grpc.method_handlers_generic_handler(service, HANDLERS)
    server.add_generic_rpc_handlers((handler,))
servicer = health.HealthServicer()
servicer.set("", health_pb2.HealthCheckResponse.SERVING)
servicer.set("test.Echo", health_pb2.HealthCheckResponse.NOT_SERVING)
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
names = ["test.Echo", "grpc.health.v1.Health", reflection.SERVICE_NAME]
reflection.enable_server_reflection(names, server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
tell(port)
sys.stdin.read()
