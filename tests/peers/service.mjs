// A small service: says what came, and echoes WebSockets. Argument: the folder in whose node_modules `ws` is. Prints its port.

import { createHash } from "node:crypto";
import http from "node:http";
import { createRequire } from "node:module";

const { WebSocketServer } = createRequire(`${process.argv[2]}/`)("ws");

const server = http.createServer((request, response) => {
    const hash = createHash("sha256");
    let length = 0;
    request.on("data", (data) => {
        hash.update(data);
        length += data.length;
    });
    request.on("end", () => {
        const size = /^\/bytes\/(\d+)$/.exec(request.url);
        if (size) {
            response.end(Buffer.alloc(Number(size[1]), "x"));
        } else {
            response.setHeader("content-type", "text/plain");
            response.end(`${request.method} ${request.url} ${length} ${hash.digest("hex")}\n`);
        }
    });
});
const sockets = new WebSocketServer({ server, maxPayload: 64 << 20 });
sockets.on("connection", (socket) => {
    socket.on("message", (data, binary) => (String(data) === "close" ? socket.close(4242, "as asked") : socket.send(data, { binary })));
});
server.keepAliveTimeout = 600_000;
server.listen(0, "127.0.0.1", () => console.log(`service on ${server.address().port}`));
