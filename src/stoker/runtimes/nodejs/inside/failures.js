// How an exception is told to the caller: type, message, and the function's own part of the stack.
'use strict';

const CODE_PATH = '/app/function';
const PREFIX_PATH = '/opt/stoker';
const OWN_FOLDER = __dirname;
const MOST_CAUSES = 10;
const LARGEST_ERRNO = 4095; // the kernel's own bound

class Teller {
  constructor(code) {
    this.paths = [[code.replace(/\/$/, ''), CODE_PATH]];
    const prefix = process.execPath.replace(/\/bin\/[^/]*$/, '');
    if (!prefix.startsWith('/usr') && !prefix.startsWith(PREFIX_PATH)) {
      this.paths.push([prefix, `${PREFIX_PATH}/nodejs-${process.versions.node}`]);
    }
  }

  // [type, message, stack, errno] of anything that was thrown.
  tell(thrown) {
    try {
      return this.tellAny(thrown);
    } catch {
      return ['Error', '(what was thrown cannot be told)', ''];
    }
  }

  tellAny(thrown) {
    if (!(thrown instanceof Error) && !(thrown && thrown.stack)) return ['Error', this.hide(String(thrown)), ''];
    const type = String(thrown.name || thrown.constructor.name);
    const texts = [thrown.message, thrown.stack].map((text) => this.hide(withoutOwn(String(text))));
    return [type, ...texts, findErrno(thrown)];
  }

  hide(text) {
    return this.paths.reduce((hidden, [path, shown]) => hidden.split(path).join(shown), text);
  }
}

// Of the system call that failed, here or in what led to this; 0: none did. A watch that cannot be had says
// ENOSPC too, of a number of watches.
function findErrno(thrown) {
  let error = thrown;
  for (let depth = 0; error instanceof Error && depth < MOST_CAUSES; depth++) {
    if (Number.isInteger(error.errno) && error.syscall !== 'watch') {
      return Math.abs(error.errno) <= LARGEST_ERRNO ? Math.abs(error.errno) : 0;
    }
    error = error.cause;
  }
  return 0;
}

// The text without the lines that name the server or what runs it.
function withoutOwn(text) {
  const isOwn = (line) => line.includes(OWN_FOLDER) || /^\s+at .*node:internal/.test(line);
  return text.split('\n').filter((line) => !isOwn(line)).join('\n');
}

module.exports = { Teller };
