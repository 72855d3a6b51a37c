"""A gRPC service with grpcio (messages are plain bytes, so that nothing has to be generated). Prints its port."""

import sys
import threading
from concurrent import futures

import grpc

cancelled = threading.Semaphore(0)


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    context.set_trailing_metadata((("x-checksum", str(sum(request) % 251)), ("x-seen", metadata.get("x-asked", "")), ("x-data-bin", b"\x00\xff")))
    return request


def fail(request, context):
    context.set_trailing_metadata((("x-why", "because"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: 50 % \u4f60\u597d")


def count(request, context):
    for n in range(int(request)):
        yield str(n).encode()


def total(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def echo(requests, context):
    for request in requests:
        yield request


def hang(request, context):
    # Until the client goes away, which has to reach us through the gateway.
    over = threading.Event()
    context.add_callback(over.set)
    yield b"begun"
    over.wait(60)
    cancelled.release()


def was_cancelled(request, context):
    return b"yes" if cancelled.acquire(timeout=20) else b"no"


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Total": grpc.stream_unary_rpc_method_handler(total),
    "Echo": grpc.stream_stream_rpc_method_handler(echo),
    "Hang": grpc.unary_stream_rpc_method_handler(hang),
    "WasCancelled": grpc.unary_unary_rpc_method_handler(was_cancelled),
}

server = grpc.server(futures.ThreadPoolExecutor(max_workers=64), options=[("grpc.max_receive_message_length", -1)])
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("peers.Peers", METHODS),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(f"gRPC on {port}", flush=True)
server.wait_for_termination()
sys.exit(0)
