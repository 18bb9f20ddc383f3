// An HTTP/1.1 server: echoes bodies, or answers 100,000 bytes of its own where there is none. Prints its port; ends
// when its input does.
const http = require('node:http');

const page = Buffer.from(Array.from({ length: 100_000 }, (_, n) => n % 251));
const server = http.createServer((request, response) => {
  if (request.method === 'GET') {
    response.end(page);
  } else {
    request.pipe(response);
  }
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.resume().on('end', () => process.exit(0));
