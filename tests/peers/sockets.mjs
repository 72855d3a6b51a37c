// What the `ws` client finds behind the gateway. Arguments: the folder in whose node_modules `ws` is, a ws:// or wss:// URL,
// and a file of trusted certificates. Prints a line for each check, and "# pass N" and "# fail N" at the end.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [folder, url, roots] = process.argv.slice(2);
const { WebSocket } = createRequire(`${folder}/`)("ws");
const options = { ca: readFileSync(roots), handshakeTimeout: 20_000 };

async function open(more = {}) {
    const socket = new WebSocket(url, { ...options, ...more });
    await once(socket, "open");
    return socket;
}

const checks = {
    "text and binary come back as they were sent": async () => {
        const socket = await open();
        for (const size of [0, 1, 125, 126, 65_535, 65_536, 1 << 20]) {
            const data = randomBytes(size);
            socket.send(data);
            const [answer, binary] = await once(socket, "message");
            assert.ok(binary && data.equals(answer), `${size} bytes`);
        }
        socket.send("你好");
        const [answer, binary] = await once(socket, "message");
        assert.deepEqual([String(answer), binary], ["你好", false]);
        socket.terminate();
    },
    "a message in pieces, compressed or not, is one message": async () => {
        for (const perMessageDeflate of [false, true]) {
            const socket = await open({ perMessageDeflate });
            socket.send("one ", { fin: false });
            socket.send("two ", { fin: false });
            socket.send("three", { fin: true });
            assert.equal(String((await once(socket, "message"))[0]), "one two three");
            socket.terminate();
        }
    },
    "a ping is answered": async () => {
        const socket = await open();
        socket.ping("are you there");
        assert.equal(String((await once(socket, "pong"))[0]), "are you there");
        socket.terminate();
    },
    "the service's close has its code and reason": async () => {
        const socket = await open();
        socket.send("close");
        const [code, reason] = await once(socket, "close");
        assert.deepEqual([code, String(reason)], [4242, "as asked"]);
    },
    "the client's close is answered": async () => {
        const socket = await open();
        socket.close(1000, "done");
        assert.equal((await once(socket, "close"))[0], 1000);
    },
    "fifty at once have their own messages": async () => {
        await Promise.all(
            Array.from({ length: 50 }, async (_, n) => {
                const socket = await open();
                for (let m = 0; m < 20; m++) {
                    socket.send(`${n}/${m}`);
                    assert.equal(String((await once(socket, "message"))[0]), `${n}/${m}`);
                }
                socket.terminate();
            }),
        );
    },
};

let passed = 0;
let failed = 0;
for (const [name, check] of Object.entries(checks)) {
    const where = url.startsWith("wss") ? "TLS" : "clear text";
    try {
        let timer;
        const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error("it took too long")), 60_000)));
        await Promise.race([check(), late]);
        clearTimeout(timer);
        passed += 1;
        console.log(`ok - WebSocket over ${where}: ${name}`);
    } catch (error) {
        failed += 1;
        console.log(`not ok - WebSocket over ${where}: ${name}\n${error.stack}`);
    }
}
console.log(`# pass ${passed}\n# fail ${failed}`);
process.exit(failed ? 1 : 0);
