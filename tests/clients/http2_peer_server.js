// An HTTP/2 server (h2c) at the port it is told, every address: answers with the address that calls.
const http2 = require('node:http2');

const server = http2.createServer();
server.on('stream', (stream) => {
  const { remoteAddress, remotePort } = stream.session.socket;
  stream.on('error', () => {});
  stream.respond({ ':status': 200 });
  stream.end(`${remoteAddress}:${remotePort}`);
});
server.listen(Number(process.argv[2]), '0.0.0.0', () => console.log('listening'));
