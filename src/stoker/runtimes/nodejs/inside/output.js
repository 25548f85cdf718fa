// What the function writes to stdout and stderr. Written at once, so that nothing is lost when the
// process ends; to the call's own log where several calls share the process.
'use strict';

const fs = require('fs');
const { Writable } = require('stream');

const RETRY_MS = 1;
const nobody = new Int32Array(new SharedArrayBuffer(4));

class Output extends Writable {
  constructor(fd, route) {
    super({ decodeStrings: true });
    this.fd = fd;
    this.isTTY = false;
    this.route = route;
  }

  _write(chunk, encoding, done) {
    if (!this.route || !this.route(this.fd, chunk)) writeAll(this.fd, chunk);
    done();
  }

  _destroy(error, done) {
    done(null); // as the original: it cannot be closed
  }
}

function writeAll(fd, chunk) {
  let written = 0;
  while (written < chunk.length) {
    try {
      written += fs.writeSync(fd, chunk, written);
    } catch (error) {
      if (error.code !== 'EAGAIN') return;
      // A program that the function started has made the shared pipe non-blocking.
      Atomics.wait(nobody, 0, 0, RETRY_MS);
    }
  }
}

// Put our streams in the place of the process's own; `route(fd, chunk)` may take a chunk.
function install(route) {
  for (const [name, fd] of [['stdout', 1], ['stderr', 2]]) {
    const stream = new Output(fd, route);
    Object.defineProperty(process, name, { configurable: true, enumerable: true, get: () => stream });
  }
}

module.exports = { install };
