// Calls one after another.
'use strict';

const { CALL, CANCEL, QUEUED } = require('./channel');
const { leave, PROTOCOL_ERROR } = require('./leaving');
const permits = require('./permits');

function serveCalls(channel, loaded) {
  const waiting = [];
  let current = 0;

  function next() {
    while (!current && waiting.length) {
      const [kind, number, payload] = waiting.shift();
      if (kind === CALL || permits.take()) begin(number, payload);
    }
  }

  function begin(number, payload) {
    current = number;
    loaded.answer(number, payload, (frame) => {
      if (current !== number) return;
      current = 0;
      channel.send(frame);
      if (waiting.length) setImmediate(next);
    });
  }

  // What nobody catches ends the process, as node does it; the call it belongs to learns why.
  process.on('uncaughtExceptionMonitor', (error) => {
    if (current) channel.send(loaded.writeUncaught(current, error));
  });

  channel.resume((kind, number, payload) => {
    if (kind === CALL || kind === QUEUED) {
      waiting.push([kind, number, payload]);
      next();
    } else if (kind !== CANCEL) leave(PROTOCOL_ERROR); // a call cannot be made to end
  });
}

module.exports = { serveCalls };
