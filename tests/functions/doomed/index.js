// Ends in the way its event asks for: the same words as main.py.
'use strict';

const fs = require('fs');
const path = require('path');
const { spawn, spawnSync } = require('child_process');
const { Worker } = require('worker_threads');

const MEBIBYTE = 1 << 20;
const SPIN = 'for (;;);';
const forEver = () => new Promise(() => setInterval(() => {}, 1 << 30));
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const large = () => path.join(process.env.TMPDIR, 'large');

function fill() {
  const file = fs.openSync(large(), 'w');
  try {
    for (;;) fs.writeSync(file, Buffer.alloc(MEBIBYTE, 'x'));
  } finally {
    fs.closeSync(file);
  }
}

const words = {
  echo: (event) => event.value,
  exit: (event) => process.exit(event.code),
  kill: (event) => {
    process.kill(process.pid, event.by);
    return forEver();
  },
  eat: () => {
    const held = [];
    for (;;) held.push(Buffer.alloc(MEBIBYTE, 1));
  },
  'child-eats': () => {
    const eat = 'const held = []; for (;;) held.push(Buffer.alloc(1 << 20, 1));';
    const { status, signal } = spawnSync(process.execPath, ['-e', eat]);
    return signal === 'SIGKILL' ? 9 : status;
  },
  sleep: (event) => pause(event.seconds),
  stop: () => {
    process.kill(0, 'SIGSTOP');
  },
  spin: () => {
    for (;;);
  },
  'spin-in-threads': () => {
    for (let number = 0; number < 2; number++) new Worker(SPIN, { eval: true });
    return forEver();
  },
  'spin-in-children': () => {
    for (let number = 0; number < 4; number++) spawn('/bin/sh', ['-c', 'while :; do :; done'], { stdio: 'ignore' });
    return forEver();
  },
  work: (event) => {
    const before = process.cpuUsage();
    for (let used = 0; used < event.ms * 1000;) {
      const { user, system } = process.cpuUsage(before);
      used = user + system;
    }
  },
  flood: () => {
    for (;;) fs.writeSync(1, Buffer.alloc(65536, 'x'));
  },
  big: (event) => 'x'.repeat(event.bytes),
  fill,
  'fill-and-tidy': () => {
    try {
      fill();
    } catch (cause) {
      fs.unlinkSync(large());
      throw new Error('no room for the picture', { cause });
    }
  },
  'fork-bomb': async () => {
    const children = [];
    try {
      for (;;) {
        const child = spawn('/bin/sleep', ['60'], { stdio: 'ignore' });
        children.push(child);
        await new Promise((resolve, reject) => child.on('spawn', resolve).on('error', reject));
      }
    } finally {
      for (const child of children) child.kill('SIGKILL');
    }
  },
};

exports.handle = (event) => words[event.do || 'echo'](event);
