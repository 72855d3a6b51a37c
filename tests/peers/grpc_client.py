"""What grpcio, as a client, finds behind the gateway. Arguments: HOST:PORT, or HOST:PORT and a file of trusted certificates.

Prints a line for each check, and "# pass N" and "# fail N" at the end.
"""

import queue
import sys
import time
import traceback

import grpc

target = sys.argv[1]
OPTIONS = [("grpc.max_receive_message_length", -1)]
if len(sys.argv) > 2:
    with open(sys.argv[2], "rb") as roots:
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(roots.read()), OPTIONS)
else:
    channel = grpc.insecure_channel(target, OPTIONS)
where = "TLS" if len(sys.argv) > 2 else "clear text"

PATH = "/peers.Peers/"
unary = channel.unary_unary(PATH + "Unary")
checks = []


def check(function):
    checks.append(function)


@check
def a_unary_call_comes_back_with_its_trailers():
    answer, call = unary.with_call(b"hello", metadata=(("x-asked", "this"),), timeout=30)
    trailers = dict(call.trailing_metadata())
    assert answer == b"hello", answer
    assert call.code() == grpc.StatusCode.OK
    assert trailers["x-checksum"] == str(sum(b"hello") % 251) and trailers["x-seen"] == "this", trailers
    assert trailers["x-data-bin"] == b"\x00\xff", trailers


@check
def a_large_message_comes_back_whole():
    message = bytes(range(256)) * 12_000
    assert unary(message, timeout=60) == message


@check
def a_status_and_its_details_are_the_services():
    try:
        channel.unary_unary(PATH + "Fail")(b"", timeout=30)
        raise AssertionError("it did not fail")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
        assert error.details() == "not now: 50 % \u4f60\u597d", error.details()
        assert dict(error.trailing_metadata())["x-why"] == "because"


@check
def an_unknown_method_is_unimplemented():
    try:
        channel.unary_unary(PATH + "Nothing")(b"", timeout=30)
        raise AssertionError("it did not fail")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error


@check
def a_server_stream_comes_in_order():
    answers = [int(answer) for answer in channel.unary_stream(PATH + "Count")(b"2000", timeout=60)]
    assert answers == list(range(2000)), answers[:10]


@check
def a_client_stream_arrives_whole():
    total = channel.stream_unary(PATH + "Total")((b"x" * n for n in range(1000)), timeout=60)
    assert int(total) == sum(range(1000)), total


@check
def messages_of_a_bidirectional_stream_take_turns():
    to_send = queue.Queue()
    answers = channel.stream_stream(PATH + "Echo")(iter(to_send.get, None), timeout=60)
    for n in range(200):
        # The next is sent only when this one is back: nothing on the way may hold messages together.
        to_send.put(str(n).encode())
        assert next(answers) == str(n).encode()
    to_send.put(None)
    assert list(answers) == [] and answers.code() == grpc.StatusCode.OK


@check
def a_deadline_is_kept():
    began = time.monotonic()
    try:
        list(channel.unary_stream(PATH + "Hang")(b"", timeout=1))
        raise AssertionError("it ended")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    assert time.monotonic() - began < 20
    assert channel.unary_unary(PATH + "WasCancelled")(b"", timeout=30) == b"yes"


@check
def a_cancelled_call_is_cancelled_at_the_service():
    call = channel.unary_stream(PATH + "Hang")(b"", timeout=60)
    assert next(call) == b"begun"
    call.cancel()
    assert channel.unary_unary(PATH + "WasCancelled")(b"", timeout=30) == b"yes"
    assert call.code() == grpc.StatusCode.CANCELLED


@check
def many_calls_at_once_get_their_own_answers():
    calls = [unary.future(str(n).encode(), timeout=60) for n in range(500)]
    assert [int(call.result()) for call in calls] == list(range(500))


passed = failed = 0
for function in checks:
    name = f"gRPC over {where}: {function.__name__.replace('_', ' ')}"
    try:
        function()
        passed += 1
        print(f"ok - {name}", flush=True)
    except Exception:  # a check that fails must not keep the others from running
        failed += 1
        print(f"not ok - {name}\n{traceback.format_exc()}", flush=True)
print(f"# pass {passed}\n# fail {failed}")
sys.exit(1 if failed else 0)
