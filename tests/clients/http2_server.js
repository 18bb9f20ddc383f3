// An HTTP/2 server (h2c): echoes bodies and says what it saw in trailers. Prints its port; ends when its input does.
const http2 = require('node:http2');

const server = http2.createServer();
server.on('stream', (stream, headers) => {
  stream.on('error', () => {});
  let bytes = 0;
  stream.respond(
    { ':status': 200, 'content-type': headers['content-type'] ?? 'text/plain', 'x-path': headers[':path'] },
    { waitForTrailers: true },
  );
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0', 'x-bytes': String(bytes) }));
  stream.on('data', (piece) => { bytes += piece.length; });
  stream.pipe(stream);
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.resume().on('end', () => process.exit(0));
