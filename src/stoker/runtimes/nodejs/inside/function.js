// One loaded function: from the payload of a CALL to the frame that ends it.
'use strict';

const { performance } = require('perf_hooks');

const { RESULT, writeError, writeText } = require('./channel');

const EVENT_AT = 20; // behind the invocation's id and the milliseconds left
const decoder = new TextDecoder('utf-8', { fatal: true });

// What a handler is told of its call.
class Context {
  constructor(loaded, payload, now) {
    this.invocationId = payload.toString('hex', 0, 16);
    this.awsRequestId = this.invocationId;
    this.functionName = loaded.name;
    this.memoryLimitInMB = loaded.memoryMb;
    this.deadline = now + payload.readUInt32BE(16);
    Object.defineProperty(this, 'deadline', { enumerable: false });
  }

  getRemainingTimeInMillis() {
    return Math.max(0, Math.floor(this.deadline - performance.now()));
  }
}

class LoadedFunction {
  constructor(load, handler, teller) {
    this.name = load.function;
    this.memoryMb = load.memory_mb;
    this.resultBytes = load.result_bytes;
    this.handler = handler;
    this.teller = teller;
    this.takesCallback = handler.length >= 3;
  }

  // Run the handler; `end(frame)` is called once.
  answer(number, payload, end) {
    const clock = new Clock();
    let event;
    try {
      event = readEvent(payload);
    } catch (error) {
      end(writeError(number, 0, 0, ['BadEvent', `the event is not JSON: ${error.message}`, '']));
      return;
    }
    clock.start();
    const good = (value) => end(this.writeValue(number, clock, value));
    const bad = (error) => end(this.writeFailure(number, clock, error));
    try {
      const value = this.call(event, new Context(this, payload, clock.began));
      if (value && typeof value.then === 'function') value.then(good, bad);
      else good(value);
    } catch (error) {
      bad(error);
    }
  }

  call(event, context) {
    if (!this.takesCallback) return this.handler(event, context);
    return new Promise((resolve, reject) => {
      const value = this.handler(event, context, (error, result) => (error ? reject(error) : resolve(result)));
      if (value && typeof value.then === 'function') value.then(resolve, reject);
    });
  }

  writeFailure(number, clock, error) {
    return writeError(number, clock.runMs(), clock.cpuMs(), this.teller.tell(error));
  }

  // For what is thrown where nobody catches it; when its call began is not known there.
  writeUncaught(number, error) {
    return writeError(number, 0, 0, this.teller.tell(error));
  }

  writeValue(number, clock, value) {
    const runMs = clock.runMs();
    const cpuMs = clock.cpuMs();
    let text;
    try {
      text = toJson(value);
    } catch (error) {
      const problem = `the handler's result is not JSON: ${this.teller.tell(error)[1]}`;
      return writeError(number, runMs, cpuMs, ['BadResult', problem, '']);
    }
    const bytes = Buffer.byteLength(text);
    if (bytes > this.resultBytes) {
      const problem = `the result has ${bytes} bytes, more than the ${this.resultBytes} allowed`;
      return writeError(number, runMs, cpuMs, ['ResultTooLarge', problem, '']);
    }
    return writeText(RESULT, number, runMs, cpuMs, text);
  }
}

// The time of one call: wall from `start` on, and the process's CPU from the beginning.
class Clock {
  constructor() {
    this.cpu = process.cpuUsage();
    this.began = 0;
  }

  start() {
    this.began = performance.now();
  }

  runMs() {
    return performance.now() - this.began;
  }

  cpuMs() {
    const { user, system } = process.cpuUsage(this.cpu);
    return (user + system) / 1000;
  }
}

function readEvent(payload) {
  return payload.length > EVENT_AT ? JSON.parse(decoder.decode(payload.subarray(EVENT_AT))) : {};
}

function toJson(value) {
  if (value === undefined) return 'null';
  const text = JSON.stringify(value);
  if (text === undefined) throw new TypeError(`a ${typeof value} has no JSON`);
  // JSON.stringify turns what is not finite into null; look closer only where there is one.
  if (text.includes('null')) JSON.stringify(value, refuseNotFinite);
  return text;
}

function refuseNotFinite(key, value) {
  if (typeof value === 'number' && !Number.isFinite(value)) throw new TypeError(`${value} has no JSON`);
  return value;
}

module.exports = { LoadedFunction };
