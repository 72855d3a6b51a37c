"""Clients that stay, for scripts/soak.sh: WebSockets that get back what they say, and event streams that go on.

    python3 scripts/streams.py HOST PORT TOKEN SECONDS SOCKETS STREAMS [tls]

Each socket says something every half second; each client leaves after ten seconds and comes anew. Anything but the right
answer in time is a fault. Prints one line at the end; exit code 1 when there were faults.
"""

import asyncio
import base64
import os
import ssl
import sys
import time

host, port, token, seconds, sockets, streams = sys.argv[1:7]
port, seconds = int(port), float(seconds)
context = None
if "tls" in sys.argv[7:]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
PATIENCE, STAY = 20, 10
end = time.monotonic() + seconds
counts = {"messages": 0, "events": 0, "connections": 0}
faults = []


async def connect(head):
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    writer.write(f"{head}Host: {host}\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    counts["connections"] += 1
    return reader, writer, answer.split(b" ", 2)[1]


def masked(text):
    key = os.urandom(4)
    return bytes([0x81, 0x80 | len(text)]) + key + bytes(b ^ key[i % 4] for i, b in enumerate(text))


async def socket(n):
    key = base64.b64encode(os.urandom(16)).decode()
    head = f"GET /api/socket HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
    reader, writer, status = await connect(head)
    if status != b"101":
        raise RuntimeError(f"a WebSocket was answered with {status.decode()}")
    leave = min(end, time.monotonic() + STAY)
    while time.monotonic() < leave:
        text = f"{n} {counts['messages']}".encode()
        writer.write(masked(text))
        frame = await reader.readexactly(2 + len(text))
        if frame != bytes([0x81, len(text)]) + text:
            raise RuntimeError(f"a message came back as {frame}")
        counts["messages"] += 1
        await asyncio.sleep(0.5)
    # A seat is free for the next one when the other side has said goodbye, too.
    writer.write(bytes([0x88, 0x80]) + os.urandom(4))
    goodbye = await reader.read()
    if goodbye != bytes([0x88, 0]):
        raise RuntimeError(f"a goodbye was answered with {goodbye}")
    writer.close()


async def stream(n):
    reader, writer, status = await connect("GET /api/events HTTP/1.1\r\nAccept: text/event-stream\r\n")
    if status != b"200":
        raise RuntimeError(f"an event stream was answered with {status.decode()}")
    leave = min(end, time.monotonic() + STAY)
    while time.monotonic() < leave:
        await reader.readuntil(b"\n\n")
        counts["events"] += 1
    writer.close()


async def client(kind, n):
    await asyncio.sleep(n % 50 / 10)
    while time.monotonic() < end - 1:
        try:
            await asyncio.wait_for(kind(n), STAY + PATIENCE)
        except Exception as fault:  # whatever it was
            faults.append(f"{kind.__name__} {n}: {fault!r}")
            await asyncio.sleep(1)


async def main():
    clients = [client(socket, n) for n in range(int(sockets))] + [client(stream, n) for n in range(int(streams))]
    await asyncio.gather(*clients)


asyncio.run(main())
print(f"streams: {counts['messages']} messages, {counts['events']} events, {counts['connections']} connections, {len(faults)} faults")
for fault in faults[:10]:
    print(f"  {fault}")
sys.exit(1 if faults else 0)
