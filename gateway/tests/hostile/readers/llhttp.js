// Reads streams of requests with llhttp, as Node's own server does: lines of JSON in, lines of JSON out, as readers.py.
"use strict";

const http = require("node:http");
const readline = require("node:readline");
const { Duplex } = require("node:stream");

function read(bytes) {
  return new Promise((resolve) => {
    const requests = [];
    let begun = 0;
    let fault;
    const server = http.createServer({ maxHeaderSize: 1 << 24, keepAliveTimeout: 0, requireHostHeader: true });
    server.maxHeadersCount = 0;
    const serve = (request, response) => {
      begun += 1;
      const body = [];
      request.on("data", (piece) => body.push(piece));
      request.on("error", () => {});
      request.on("end", () => {
        const fields = [];
        for (let at = 0; at < request.rawHeaders.length; at += 2) {
          fields.push([request.rawHeaders[at], request.rawHeaders[at + 1]]);
        }
        const { method, url } = request;
        requests.push({ method, target: url, fields, body: Buffer.concat(body).toString("latin1") });
        response.end();
      });
    };
    server.on("request", serve);
    server.on("checkContinue", serve);
    server.on("checkExpectation", serve);
    server.on("upgrade", (request) => (fault ??= `upgrade of ${request.url}`));
    server.on("connect", (request) => (fault ??= `connect of ${request.url}`));
    server.on("clientError", (error, socket) => {
      // What ends early is no fault of what came.
      if (error.code !== "HPE_INVALID_EOF_STATE" && error.code !== "ECONNRESET") {
        fault ??= `${error.code} ${error.message}`;
      } else {
        begun = Math.max(begun, requests.length + 1);
      }
      settled().then(() => socket.destroy());
    });
    const settled = async () => {
      for (let told = -1, quiet = 0; quiet < 10; ) {
        quiet = told === requests.length ? quiet + 1 : 0;
        told = requests.length;
        await new Promise(setImmediate);
      }
    };
    const socket = new Duplex({ read() {}, write: (piece, encoding, done) => done() });
    socket.setTimeout = () => socket;
    socket.setNoDelay = () => socket;
    socket.setKeepAlive = () => socket;
    socket.on("error", () => {});
    socket.on("close", () => {
      const end = fault ?? (begun > requests.length ? "partial" : "clean");
      server.close();
      resolve({ requests, end });
    });
    server.emit("connection", socket);
    // The end comes when the requests have been told of: it would cut them off otherwise.
    socket.push(bytes);
    settled().then(() => socket.push(null));
  });
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { id, hex } = JSON.parse(line);
    const { requests, end } = await read(Buffer.from(hex, "hex"));
    process.stdout.write(`${JSON.stringify({ id, requests, end })}\n`);
  }
}

main();
