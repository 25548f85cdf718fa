// Several calls at once on one event loop. What a call writes, it and all it starts, is its own log.
'use strict';

const { AsyncLocalStorage } = require('async_hooks');

const { CALL, CANCEL, LOG, writeFrame } = require('./channel');
const { leave, PROTOCOL_ERROR } = require('./leaving');
const output = require('./output');

function serveCalls(channel, loaded) {
  const calls = new AsyncLocalStorage();
  const running = new Set();

  output.install((fd, chunk) => {
    const number = calls.getStore();
    if (!running.has(number)) return false;
    channel.send(writeFrame(LOG, number, Buffer.concat([Buffer.of(fd), chunk])));
    return true;
  });

  function begin(number, payload) {
    running.add(number);
    loaded.answer(number, payload, (frame) => {
      if (running.delete(number)) channel.send(frame);
    });
  }

  process.on('uncaughtExceptionMonitor', (error) => {
    const number = calls.getStore();
    if (running.has(number)) channel.send(loaded.writeUncaught(number, error));
  });

  channel.resume((kind, number, payload) => {
    if (kind === CALL) calls.run(number, begin, number, payload);
    else if (kind !== CANCEL) leave(PROTOCOL_ERROR); // a call cannot be made to end
  });
}

module.exports = { serveCalls };
