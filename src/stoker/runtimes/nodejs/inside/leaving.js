// The ways out of the process that are not the function's own.
'use strict';

const PROTOCOL_ERROR = 78;
const INTERNAL_ERROR = 70;

// Bound before any function could put something else in its place.
const leave = process.exit.bind(process);

function fail(error) {
  process.stderr.write(`${error.stack}\n`);
  leave(INTERNAL_ERROR);
}

module.exports = { PROTOCOL_ERROR, fail, leave };
