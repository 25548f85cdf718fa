// Attacks with what a function writes, returns and raises.
'use strict';

const fs = require('fs');

exports.floods = () => {
  for (;;) process.stdout.write('y\n'.repeat(32_768));
};

exports.floods_the_channel = () => {
  for (;;) {
    try {
      fs.writeSync(3, Buffer.alloc(65_536));
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
};

exports.result_that_lies = () => ({
  toJSON() {
    throw null;
  },
});

exports.result_without_end = () => {
  const ring = {};
  ring.ring = ring;
  return ring;
};

exports.throws_nothing = () => {
  throw undefined;
};

exports.error_that_cannot_be_told = () => {
  throw new Proxy(
    {},
    {
      get() {
        throw new Error('no');
      },
    },
  );
};

exports.takes_the_words_away = () => {
  JSON.stringify = Buffer.from = Buffer.concat = Buffer.allocUnsafe = () => null;
  Object.prototype.then = Array.prototype.push = undefined;
  return { a: 1 };
};
