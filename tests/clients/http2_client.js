// Forty calls at once on one HTTP/2 connection through port argv[2]: bodies come back byte for byte,
// trailers after them. Exits 0 only then.
const http2 = require('node:http2');
const assert = require('node:assert');

const client = http2.connect(`http://127.0.0.1:${process.argv[2]}`);
client.on('error', (error) => { console.error(error); process.exit(1); });

function call(n) {
  return new Promise((resolve, reject) => {
    const body = Buffer.alloc(n * 5_003, n);
    const stream = client.request({ ':method': 'POST', ':path': `/echo/${n}`, ':authority': 'any.example', 'content-type': 'application/grpc', te: 'trailers' });
    const pieces = [];
    let head, trailers;
    stream.on('response', (headers) => { head = headers; });
    stream.on('trailers', (headers) => { trailers = headers; });
    stream.on('data', (piece) => pieces.push(piece));
    stream.on('error', reject);
    stream.on('end', () => {
      try {
        assert.strictEqual(head[':status'], 200);
        assert.strictEqual(head['x-path'], `/echo/${n}`);
        assert.ok(Buffer.concat(pieces).equals(body), `body of call ${n}`);
        assert.strictEqual(trailers['grpc-status'], '0');
        assert.strictEqual(trailers['x-bytes'], String(body.length));
        resolve();
      } catch (error) { reject(error); }
    });
    stream.end(body);
  });
}

Promise.all(Array.from({ length: 40 }, (_, n) => call(n))).then(
  () => { client.close(); },
  (error) => { console.error(error); process.exit(1); },
);
