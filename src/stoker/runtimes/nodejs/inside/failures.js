// How an exception is told to the caller: type, message, and the function's own part of the stack.
'use strict';

const CODE_PATH = '/app/function';
const PREFIX_PATH = '/opt/stoker';
const OWN_FOLDER = __dirname;

class Teller {
  constructor(code) {
    this.paths = [[code.replace(/\/$/, ''), CODE_PATH]];
    const prefix = process.execPath.replace(/\/bin\/[^/]*$/, '');
    if (!prefix.startsWith('/usr') && !prefix.startsWith(PREFIX_PATH)) {
      this.paths.push([prefix, `${PREFIX_PATH}/nodejs-${process.versions.node}`]);
    }
  }

  // [type, message, stack] of anything that was thrown.
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
    return [type, ...[thrown.message, thrown.stack].map((text) => this.hide(withoutOwn(String(text))))];
  }

  hide(text) {
    return this.paths.reduce((hidden, [path, shown]) => hidden.split(path).join(shown), text);
  }
}

// The text without the lines that name the server or what runs it.
function withoutOwn(text) {
  const isOwn = (line) => line.includes(OWN_FOLDER) || /^\s+at .*node:internal/.test(line);
  return text.split('\n').filter((line) => !isOwn(line)).join('\n');
}

module.exports = { Teller };
