// Node's http client against a sidecar: http_client.js UPSTREAM_PORT SIDECAR_PORT, both on 127.0.0.1.
// What comes through the sidecar must equal what the upstream says to a direct call. Exits with the
// first difference.
'use strict';

const assert = require('node:assert');
const http = require('node:http');

const [upstream, sidecar] = process.argv.slice(2).map(Number);
const kept = new http.Agent({ keepAlive: true, maxSockets: 1 });
const sockets = new Set();

function options(port, more) {
  return { host: '127.0.0.1', port, headers: { host: 'any.example' }, ...more };
}

function ask(port, more, write) {
  return new Promise((done, failed) => {
    const request = http.request(options(port, more), (answer) => {
      const pieces = [];
      answer.on('data', (piece) => pieces.push(piece));
      answer.on('end', () => done({ answer, body: Buffer.concat(pieces) }));
      answer.on('error', failed);
    });
    request.on('socket', (socket) => port === sidecar && more.agent && sockets.add(socket));
    request.on('error', failed);
    if (write) write(request);
    else request.end();
  });
}

async function main() {
  for (const path of ['/bytes/0', '/bytes/1', '/bytes/70001', '/chunked/0', '/chunked/300000']) {
    const wanted = await ask(upstream, { path });
    const got = await ask(sidecar, { path, agent: kept });
    assert.strictEqual(got.answer.statusCode, 200, path);
    assert(got.body.equals(wanted.body), `${path}: ${got.body.length} bytes`);
  }
  const head = await ask(sidecar, { method: 'HEAD', path: '/bytes/12345', agent: kept });
  assert.deepStrictEqual([head.answer.headers['content-length'], head.body.length], ['12345', 0]);

  const upload = Buffer.from(Array.from({ length: 200000 }, (_, n) => n % 251));
  const post = { method: 'POST', path: '/echo', agent: kept };
  const echoed = await ask(sidecar, post, (request) => {
    for (let at = 0; at < upload.length; at += 7777) request.write(upload.subarray(at, at + 7777));
    request.end();
  });
  assert(echoed.body.equals(upload), 'an upload in chunks');
  assert.strictEqual(sockets.size, 1, 'the connection was not kept');

  const expecting = options(sidecar, { method: 'POST', path: '/echo' });
  expecting.headers = { ...expecting.headers, expect: '100-continue', 'content-length': 5 };
  let leave = false;
  const { body } = await ask(sidecar, expecting, (request) => {
    request.on('continue', () => { leave = true; request.end('hello'); });
    request.flushHeaders();
  });
  assert(leave && body.equals(Buffer.from('hello')), 'leave to send');

  await new Promise((done, failed) => {
    const upgrading = options(sidecar, { path: '/websocket' });
    upgrading.headers = { ...upgrading.headers, connection: 'Upgrade', upgrade: 'websocket' };
    const request = http.request(upgrading);
    request.on('error', failed);
    request.on('upgrade', (answer, socket) => {
      const pieces = [];
      socket.on('data', (piece) => pieces.push(piece));
      socket.on('end', () => done(assert(Buffer.concat(pieces).equals(upload), 'frames')));
      socket.on('error', failed);
      socket.end(upload);
    });
    request.end();
  });

  await new Promise((done, failed) => {
    const request = http.request(options(sidecar, { method: 'CONNECT', path: 'any.example:80' }));
    request.on('error', failed);
    request.on('connect', async (answer, socket) => {
      assert.strictEqual(answer.statusCode, 200, 'a tunnel');
      const inside = await ask(sidecar, { path: '/bytes/5', createConnection: () => socket });
      const wanted = await ask(upstream, { path: '/bytes/5' });
      assert(inside.body.equals(wanted.body), 'in a tunnel');
      socket.destroy();
      done();
    });
    request.end();
  });
  kept.destroy();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
