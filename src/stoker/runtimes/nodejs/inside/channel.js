// The server's end of the wire: frames on one stream socket.
'use strict';

const net = require('net');

const { fail, leave } = require('./leaving');

const LOAD = 0x01;
const CALL = 0x02;
const CANCEL = 0x03;
const DATA_IN = 0x04;
const QUEUED = 0x05;
const MORE = 0x40;
const HELLO = 0x81;
const LOADED = 0x82;
const RESULT = 0x83;
const ERROR = 0x84;
const LOG = 0x85;
const EXITED = 0x87;

const HEAD = 9;
const TIMES = 16;
const MAX_TYPE = 200; // characters; all three together, at six bytes each, stay below the node's 1 MiB
const MAX_MESSAGE = 32_000;
const MAX_STACK = 128_000;
const NOTHING = Buffer.alloc(0);

// Cuts a stream into frames and hands each to `receive(kind, number, payload)`, joined if it came in parts.
class Frames {
  constructor(receive) {
    this.receive = receive;
    this.held = NOTHING;
    this.missing = [];
    this.missingBytes = 0;
    this.parts = new Map();
    this.isPaused = false;
  }

  take(data) {
    if (this.missingBytes > data.length) {
      this.missing.push(data);
      this.missingBytes -= data.length;
      return;
    }
    this.held = this.held.length || this.missing.length ? Buffer.concat([this.held, ...this.missing, data]) : data;
    this.missing = [];
    this.missingBytes = 0;
    this.go();
  }

  go() {
    while (!this.isPaused && this.held.length >= HEAD) {
      const end = HEAD + this.held.readUInt32BE(0);
      if (this.held.length < end) {
        this.missingBytes = end - this.held.length;
        return;
      }
      const kind = this.held[4];
      const number = this.held.readUInt32BE(5);
      const payload = this.held.subarray(HEAD, end);
      this.held = this.held.subarray(end);
      this.hand(kind, number, payload);
    }
  }

  hand(kind, number, payload) {
    if (!(kind & MORE) && kind !== DATA_IN) {
      this.receive(kind, number, payload);
      return;
    }
    const parts = this.parts.get(number) || [];
    this.parts.set(number, [...parts, payload]);
    if (kind & MORE) return;
    this.parts.delete(number);
    this.receive(CALL, number, Buffer.concat([...parts, payload]));
  }
}

class Channel {
  constructor(fd, receive) {
    this.frames = new Frames(receive);
    this.socket = new net.Socket({ fd, readable: true, writable: true });
    this.socket.on('data', (data) => this.frames.take(data));
    this.socket.on('end', () => leave(0));
    this.socket.on('error', (error) => (error.syscall ? leave(0) : fail(error)));
  }

  // Hold back what comes until it is clear who receives it.
  pause() {
    this.frames.isPaused = true;
  }

  resume(receive) {
    this.frames.receive = receive;
    this.frames.isPaused = false;
    this.frames.go();
  }

  // Whether more may be said at once; if not, 'drain' on the socket tells when.
  send(data) {
    return this.socket.write(data);
  }

  sendAndLeave(data, code) {
    this.socket.write(data, () => leave(code));
  }
}

function writeFrame(kind, number, payload) {
  const frame = Buffer.allocUnsafe(HEAD + payload.length);
  writeHead(frame, kind, number);
  payload.copy(frame, HEAD);
  return frame;
}

function writeHead(frame, kind, number) {
  frame.writeUInt32BE(frame.length - HEAD, 0);
  frame[4] = kind;
  frame.writeUInt32BE(number, 5);
}

// Milliseconds, each as 64 bits of nanoseconds.
function writeTimes(...times) {
  const written = Buffer.allocUnsafe(8 * times.length);
  times.forEach((ms, index) => writeTime(written, 8 * index, ms));
  return written;
}

function writeTime(buffer, at, ms) {
  const ns = Math.max(0, Math.round(ms * 1e6));
  buffer.writeUInt32BE(Math.floor(ns / 0x1_0000_0000), at);
  buffer.writeUInt32BE(ns % 0x1_0000_0000, at + 4);
}

function writeText(kind, number, runMs, cpuMs, text) {
  const frame = Buffer.allocUnsafe(HEAD + TIMES + Buffer.byteLength(text));
  writeHead(frame, kind, number);
  writeTime(frame, HEAD, runMs);
  writeTime(frame, HEAD + 8, cpuMs);
  frame.write(text, HEAD + TIMES);
  return frame;
}

function writeError(number, runMs, cpuMs, [type, message, stack, errno]) {
  const error = {
    type: type.slice(0, MAX_TYPE),
    message: message.slice(0, MAX_MESSAGE),
    stack: stack.slice(0, MAX_STACK),
    errno: errno || undefined,
  };
  return writeText(ERROR, number, runMs, cpuMs, JSON.stringify(error));
}

module.exports = {
  CALL, CANCEL, ERROR, EXITED, HEAD, HELLO, LOAD, LOADED, LOG, QUEUED, RESULT,
  Channel, Frames, writeError, writeFrame, writeText, writeTimes,
};
