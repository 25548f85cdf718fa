// Attacks with processes and signals.
'use strict';

const { spawn } = require('child_process');
const { Worker } = require('worker_threads');

const forever = () => new Promise((resolve) => setTimeout(resolve, 2 ** 31 - 1));

exports.fork_bomb = () => {
  for (;;) spawn(process.execPath, [__filename]).on('error', () => {});
};

exports.thread_bomb = () => {
  for (let i = 0; i < 200; i++) new Worker('setInterval(() => {}, 1000)', { eval: true }).on('error', () => {});
  return forever();
};

exports.exits = (event) => process.exit(event.code);

exports.aborts = () => process.abort();

exports.raises_outside = () => {
  setImmediate(() => {
    throw new Error('outside of every call');
  });
  return forever();
};

exports.rejects_outside = () => {
  Promise.reject(new Error('nobody waits'));
  return forever();
};

exports.takes_the_ways_out_away = () => {
  process.exit = process.reallyExit = process.abort = () => {};
  process.on('exit', () => {
    for (;;);
  });
  return [];
};
