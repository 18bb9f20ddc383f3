// An HTTP/2 server (h2c) that takes WebSocket by extended CONNECT (RFC 8441) and sends every byte back. Prints its
// port; ends when its input does.
const http2 = require('node:http2');

const server = http2.createServer({ settings: { enableConnectProtocol: true } });
server.on('stream', (stream, headers) => {
  stream.on('error', () => {});
  const asked = headers[':method'] === 'CONNECT' && headers[':protocol'] === 'websocket' && !('sec-websocket-key' in headers);
  if (!asked) { stream.respond({ ':status': 426 }, { endStream: true }); return; }
  stream.respond({ ':status': 200, 'x-path': headers[':path'] });
  stream.pipe(stream);
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.resume().on('end', () => process.exit(0));
