// Serves calls inside a sandbox: greets, loads the function, then answers the frames of docs/wire.md on
// descriptor 3. The core modules of Node.js 16 are all it needs.
'use strict';

const { performance } = require('perf_hooks');

const { Channel, HELLO, LOAD, LOADED, writeFrame, writeTimes } = require('./channel');
const { fail, leave, PROTOCOL_ERROR } = require('./leaving');
const output = require('./output');
const permits = require('./permits');

const WIRE = 1;

function main() {
  output.install();
  const channel = new Channel(3, (kind, number, payload) => {
    if (kind !== LOAD) leave(PROTOCOL_ERROR);
    const load = JSON.parse(payload.toString());
    if (load.wire !== WIRE) leave(PROTOCOL_ERROR);
    channel.pause();
    serve(channel, load).catch(fail);
  });
  const hello = { wire: WIRE, runtime: 'nodejs', version: process.versions.node, queues: permits.areThere() };
  channel.send(writeFrame(HELLO, 0, Buffer.from(JSON.stringify(hello))));
}

async function serve(channel, load) {
  if (load.mode === 'fork') {
    require('./forks').serveCalls(channel, load);
    return;
  }
  const began = performance.now();
  const { LoadFailed, loadFunction } = require('./loading');
  let loaded;
  try {
    loaded = await loadFunction(load);
  } catch (error) {
    if (!(error instanceof LoadFailed)) throw error;
    channel.sendAndLeave(error.frame(performance.now() - began), 1);
    return;
  }
  channel.send(writeFrame(LOADED, 0, writeTimes(performance.now() - began)));
  const mode = load.concurrency > 1 ? './concurrent' : './serial';
  require(mode).serveCalls(channel, loaded);
}

main();
