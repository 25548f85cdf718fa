// Does what its event says: the same words as main.py.
'use strict';

const fs = require('fs');
const os = require('os');
const path = require('path');
const { execFileSync, spawn } = require('child_process');
const crypto = require('crypto');

let count = 0;
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const forEver = () => new Promise(() => setInterval(() => {}, 1 << 30));

const words = {
  echo: (event) => event.value,
  context: (event, context) => ({
    id: context.invocationId,
    function: context.functionName,
    left_ms: context.getRemainingTimeInMillis(),
  }),
  big: (event) => 'x'.repeat(event.bytes - 2),
  raise: (event) => {
    throw new RangeError(event.message || 'asked to');
  },
  print: (event) => {
    process.stdout.write(event.stdout || '');
    process.stderr.write(event.stderr || '');
  },
  shout: () => {
    execFileSync('/bin/sh', ['-c', 'echo loud; echo clear >&2'], { stdio: 'inherit' });
  },
  flood: (event) => {
    const line = Buffer.alloc(65536, 'x');
    for (let left = (event.bytes || Infinity) / 65536; left >= 1; left--) fs.writeSync(1, line);
    return 'dry';
  },
  sleep: (event) => pause(event.seconds),
  hang: forEver,
  spin: () => {
    for (;;);
  },
  exit: (event) => process.exit(event.code || 0),
  abort: () => process.abort(),
  kill: (event) => {
    process.kill(process.pid, os.constants.signals[event.name || 'SIGKILL']);
    return forEver();
  },
  oom: () => {
    const held = [];
    try {
      for (;;) held.push(Buffer.alloc(1 << 20, 1));
    } catch {
      return forEver();
    }
  },
  async: async () => {
    await pause(0);
    return 'later';
  },
  unserialisable: () => ({ a: 1n }),
  infinity: () => [Infinity],
  count: () => ++count,
  process: () => process.pid,
  random: () => [Math.random(), crypto.randomUUID(), crypto.randomBytes(8).toString('hex')],
  environment: () => ({ ...process.env }),
  descriptors: () => {
    const shown = execFileSync('/bin/ls', ['-l', '/proc/self/fd'], { encoding: 'utf8' });
    return shown.split('\n').filter((line) => line.includes(' -> ')).map((line) => line.split(' -> ')[1]);
  },
  write: (event) => {
    const file = path.join(process.env.TMPDIR, event.name || 'file');
    fs.writeFileSync(file, 'x'.repeat(event.bytes || 1));
    return file;
  },
  folder: () => fs.readdirSync('.').sort(),
  daemon: () => {
    spawn('/bin/sh', ['-c', 'setsid sleep 3600 <&- >&- 2>&- &'], { detached: true, stdio: 'ignore' }).unref();
    return pause(0.2).then(() => 'left');
  },
  frames: () => {
    const lie = Buffer.concat([Buffer.from([0, 0, 0, 18, 0x83, 0, 0, 0, 1]), Buffer.alloc(16), Buffer.from('[]')]);
    for (const descriptor of [1, 2]) fs.writeSync(descriptor, lie);
    return 'the truth';
  },
  uncaught: () => {
    setTimeout(() => {
      throw new RangeError('nobody catches this');
    }, 1);
    return forEver();
  },
};

exports.handle = (event, context) => (event && event.do ? words[event.do](event, context) : event);

exports.patient = async (event) => {
  console.log('in', event.n);
  await pause(event.seconds || 0);
  console.log('out', event.n);
  if (event.fails) throw new RangeError(String(event.n));
  return event;
};

exports.called = (event, context, callback) => setImmediate(callback, null, { called: event });
