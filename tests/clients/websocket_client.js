// WebSocket through port argv[2], by HTTP/1.1 and by HTTP/2, several at once: what is said comes back byte for byte, and
// the end of our direction brings the end of theirs. Exits 0 only then.
const http = require('node:http');
const http2 = require('node:http2');
const assert = require('node:assert');
const { createHash, randomBytes } = require('node:crypto');

const port = process.argv[2];
const body = (n) => Buffer.alloc(200_003 + n, n + 1);

function echoed(stream, first, n) {
  return new Promise((resolve, reject) => {
    const pieces = [first];
    stream.on('data', (piece) => pieces.push(piece));
    stream.on('error', reject);
    stream.on('end', () => (Buffer.concat(pieces).equals(body(n)) ? resolve() : reject(new Error(`bytes of ${n}`))));
    stream.end(body(n));
  });
}

function byUpgrade(n) {
  return new Promise((resolve, reject) => {
    const key = randomBytes(16).toString('base64');
    const headers = { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Key': key, 'Sec-WebSocket-Version': '13', Host: 'any.example' };
    const request = http.request({ port, path: `/chat/${n}`, headers });
    request.on('error', reject);
    request.on('response', (response) => reject(new Error(`HTTP/1.1: ${response.statusCode}`)));
    request.on('upgrade', (response, socket, first) => {
      const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
      assert.strictEqual(response.headers['sec-websocket-accept'], accept);
      assert.strictEqual(response.headers['x-path'], `/chat/${n}`);
      echoed(socket, first, n).then(resolve, reject);
    });
    request.end();
  });
}

const session = http2.connect(`http://127.0.0.1:${port}`);
session.on('error', (error) => { console.error(error); process.exit(1); });

function byConnect(n) {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ':method': 'CONNECT', ':protocol': 'websocket', ':path': `/chat/${n}`, ':scheme': 'http', ':authority': 'any.example', 'sec-websocket-version': '13' }, { endStream: false });
    stream.on('error', reject);
    stream.on('response', (headers) => {
      assert.strictEqual(headers[':status'], 200);
      assert.strictEqual(headers['x-path'], `/chat/${n}`);
      assert.ok(!('sec-websocket-accept' in headers));
      echoed(stream, Buffer.alloc(0), n).then(resolve, reject);
    });
  });
}

session.once('remoteSettings', (settings) => {
  assert.strictEqual(settings.enableConnectProtocol, true);
  const calls = Array.from({ length: 8 }, (_, n) => [byUpgrade(n), byConnect(n)]).flat();
  Promise.all(calls).then(() => session.close(), (error) => { console.error(error); process.exit(1); });
});
