// Attacks on time and processors.
'use strict';

const { spawn } = require('child_process');

const forever = () => new Promise((resolve) => setTimeout(resolve, 2 ** 31 - 1));

exports.busy_loop = () => {
  for (;;);
};

exports.sleeps_for_ever = forever;

exports.never_lets_the_loop_turn = async () => {
  for (;;) await null;
};

exports.timers_by_the_hundred_thousand = () => {
  for (let i = 0; i < 100_000; i++) setInterval(() => {}, 1);
  return [];
};

exports.busy_daemon_left_behind = () => {
  spawn(process.execPath, ['-e', 'for (;;);'], { detached: true, stdio: 'ignore' }).unref();
  return [];
};

exports.a_pattern_without_end = () => /^(a+)+$/.test('a'.repeat(60) + 'b');
