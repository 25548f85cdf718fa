// A fresh process for each call. A process of Node.js cannot be forked, so one is always started ahead:
// this very server in mode `process`, with the function loaded, waiting for its one call. This process
// runs no code of the function; it relays frames, and what is written to descriptors 1 and 2.
'use strict';

const { spawn } = require('child_process');
const { constants } = require('os');
const path = require('path');

const {
  CALL, CANCEL, ERROR, EXITED, Frames, LOAD, LOADED, LOG, RESULT, writeError, writeFrame,
} = require('./channel');
const { leave, PROTOCOL_ERROR } = require('./leaving');
const spending = require('./spending');

const SERVER = path.join(__dirname, 'server.js');
const LAST_WORDS_MS = 100; // how long a pipe is waited for that someone else holds open

// One process and its one call.
class Process {
  constructor(load, server) {
    this.server = server;
    this.number = 0;
    this.answer = null;
    this.isCancelled = false;
    this.spentNs = 0; // what it had used when it was ended for that
    this.isOver = false;
    this.isHeldUp = false;
    this.child = spawn(process.execPath, [...process.execArgv, SERVER], {
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
      detached: true, // a group of its own, to be killed with all it started
    });
    this.listen(load);
  }

  listen(load) {
    const { child } = this;
    const frames = new Frames((...frame) => this.receive(...frame));
    const [, stdout, stderr, channel] = child.stdio;
    channel.on('data', (data) => frames.take(data));
    for (const stream of [stdout, stderr, channel]) stream.on('error', () => {});
    stdout.on('data', (data) => this.server.wrote(this, 1, data));
    stderr.on('data', (data) => this.server.wrote(this, 2, data));
    child.on('error', (error) => this.finish(null, null, error));
    child.on('exit', (code, signal) => {
      this.killGroup();
      this.waitForLastWords(code, signal);
      child.on('close', () => this.finish(code, signal));
    });
    this.send(LOAD, 0, Buffer.from(JSON.stringify({ ...load, mode: 'process', concurrency: 1 })));
  }

  waitForLastWords(code, signal) {
    const goOn = () => (this.isHeldUp ? this.waitForLastWords(code, signal) : this.finish(code, signal));
    setTimeout(goOn, LAST_WORDS_MS);
  }

  // Leave what it writes in its pipes while the node does not take what is there: held here, it would be memory
  // of the sandbox, which others share.
  holdUp(isHeldUp) {
    this.isHeldUp = isHeldUp;
    const [, stdout, stderr] = this.child.stdio;
    for (const stream of [stdout, stderr]) stream[isHeldUp ? 'pause' : 'resume']();
  }

  send(kind, number, payload) {
    this.child.stdio[3].write(writeFrame(kind, number, payload));
  }

  run(number, payload) {
    this.number = number;
    this.send(CALL, number, payload);
  }

  receive(kind, number, payload) {
    if (kind === LOADED) this.server.loaded(this, payload);
    else if (kind === ERROR && number === 0) this.server.loadFailed(this, payload);
    else if ((kind === RESULT || kind === ERROR) && number === this.number && !this.answer) {
      this.answer = [kind, payload];
      this.killGroup(); // its end closes its pipes: then all it wrote is here
    }
  }

  killGroup() {
    try {
      process.kill(-this.child.pid, 'SIGKILL');
    } catch {
      // Nobody is left in it, or it was never started.
    }
  }

  finish(code, signal, error) {
    if (this.isOver) return;
    this.isOver = true;
    this.server.ended(this, code, signal, error);
  }
}

class Server {
  constructor(channel, load) {
    this.channel = channel;
    this.load = load;
    this.processes = new Set();
    this.calls = new Map();
    this.isLoaded = false;
    this.spare = this.start();
    channel.socket.on('drain', () => this.processes.forEach((each) => each.isHeldUp && each.holdUp(false)));
    if (load.cpu_ms) setInterval(() => this.endSpenders(), spending.LOOK_MS);
    process.on('exit', () => this.processes.forEach((each) => each.killGroup()));
  }

  start() {
    const forked = new Process(this.load, this);
    this.processes.add(forked);
    return forked;
  }

  receive(kind, number, payload) {
    if (kind === CALL) this.begin(number, payload);
    else if (kind === CANCEL) this.cancel(number);
    else leave(PROTOCOL_ERROR);
  }

  begin(number, payload) {
    const taken = this.spare || this.start();
    this.calls.set(number, taken);
    taken.run(number, payload);
    this.spare = this.start();
  }

  cancel(number) {
    const forked = this.calls.get(number);
    if (!forked) return;
    forked.isCancelled = true;
    forked.killGroup();
  }

  // End the calls that have used their processor time.
  endSpenders() {
    if (!this.calls.size) return;
    const usedNs = spending.bySession();
    for (const forked of this.calls.values()) {
      const spentNs = usedNs.get(forked.child.pid) || 0;
      if (spentNs < this.load.cpu_ms * 1e6) continue;
      forked.spentNs = spentNs;
      forked.killGroup();
    }
  }

  // What the processes tell

  // What it wrote before it said so may be read after it, in the same turn of the event loop.
  loaded(forked, payload) {
    setImmediate(() => {
      if (this.isLoaded) return;
      this.isLoaded = true;
      this.channel.send(writeFrame(LOADED, 0, payload));
      this.channel.resume((...frame) => this.receive(...frame));
    });
  }

  loadFailed(forked, payload) {
    if (!this.isLoaded) this.channel.sendAndLeave(writeFrame(ERROR, 0, payload), 1);
    else forked.answer = [ERROR, payload];
  }

  wrote(forked, stream, data) {
    // What the first one wrote while it loaded is the sandbox's; of the others it is the same again.
    if (!this.isLoaded) (stream === 1 ? process.stdout : process.stderr).write(data);
    else if (this.calls.get(forked.number) === forked) {
      const frame = writeFrame(LOG, forked.number, Buffer.concat([Buffer.of(stream), data]));
      if (!this.channel.send(frame)) forked.holdUp(true);
    }
  }

  ended(forked, code, signal, error) {
    this.processes.delete(forked);
    if (this.spare === forked) this.spare = null;
    if (!this.isLoaded) leave(code === null ? 1 : code);
    if (this.calls.get(forked.number) !== forked) return;
    this.calls.delete(forked.number);
    this.channel.send(this.lastFrame(forked, code, signal, error));
  }

  lastFrame({ number, answer, isCancelled, spentNs }, code, signal, error) {
    if (answer) return writeFrame(answer[0], number, answer[1]);
    if (isCancelled) return writeError(number, 0, 0, ['Cancelled', 'the caller has left', '']);
    if (error) return writeError(number, 0, 0, ['OutOfProcesses', `no process could be made for this call: ${error.code}`, '']);
    const ending = Buffer.alloc(16);
    ending.writeInt32BE(code === null ? -1 : code, 0);
    ending.writeInt32BE(signal === null ? -1 : constants.signals[signal], 4);
    ending.writeBigUInt64BE(BigInt(spentNs), 8);
    return writeFrame(EXITED, number, ending);
  }
}

function serveCalls(channel, load) {
  new Server(channel, load);
}

module.exports = { serveCalls };
