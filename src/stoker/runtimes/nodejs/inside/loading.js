// From a LOAD frame to a function that can be called.
'use strict';

const { spawnSync } = require('child_process');
const fs = require('fs');
const path = require('path');
const { pathToFileURL } = require('url');

const { writeError } = require('./channel');
const { Teller } = require('./failures');
const { LoadedFunction } = require('./function');

const ENDINGS = ['.js', '.mjs', '.cjs'];

class LoadFailed extends Error {
  constructor(type, message, stack = '') {
    super(message);
    this.told = [type, message, stack];
  }

  frame(tookMs) {
    return writeError(0, tookMs, 0, this.told);
  }
}

async function loadFunction(load) {
  const teller = new Teller(load.code);
  Object.assign(process.env, load.environment);
  process.chdir(load.code);
  const [file, name] = findFile(load.code, load.handler);
  process.argv = [process.execPath, file];
  const module = await importFile(file, teller);
  return new LoadedFunction(load, findHandler(module, file, name), teller);
}

function findFile(code, notation) {
  const dot = notation.lastIndexOf('.');
  if (dot < 1) throw new LoadFailed('NoSuchHandler', `'${notation}' is not of the form 'file.function'`);
  const stem = path.join(code, notation.slice(0, dot));
  const file = ENDINGS.map((ending) => stem + ending).find((each) => fs.existsSync(each));
  if (file) return [file, notation.slice(dot + 1)];
  const there = fs.readdirSync(code).filter((each) => ENDINGS.includes(path.extname(each))).sort();
  const told = there.join(', ') || 'no .js file';
  throw new LoadFailed('NoSuchHandler', `no file '${notation.slice(0, dot)}.js' in the function's folder; there is ${told}`);
}

async function importFile(file, teller) {
  try {
    return await requireOrImport(file);
  } catch (error) {
    const [type, message, stack] = teller.tell(error);
    const place = type === 'SyntaxError' ? tellPlace(stack) || tellPlace(check(file)) : '';
    throw new LoadFailed('ImportFailed', `${type}: ${message.split('\n')[0]}${place}`, stack);
  }
}

async function requireOrImport(file) {
  if (file.endsWith('.mjs')) return import(pathToFileURL(file).href);
  try {
    return require(file);
  } catch (error) {
    if (error.code !== 'ERR_REQUIRE_ESM' && error.code !== 'ERR_REQUIRE_ASYNC_MODULE') throw error;
    return import(pathToFileURL(file).href);
  }
}

// Where a syntax error is: the first line of its stack, not part of its message.
function tellPlace(stack) {
  const match = /^(?:file:\/\/)?.*\/([^/\n]+:\d+)\n/.exec(stack);
  return match ? ` (${match[1]})` : '';
}

// What node itself says of a file's syntax: the stack of an error in a module does not say where it is.
function check(file) {
  return spawnSync(process.execPath, ['--check', file], { encoding: 'utf8' }).stderr || '';
}

function findHandler(module, file, name) {
  const places = [module, module && module.default].filter((place) => place && /^(object|function)$/.test(typeof place));
  const place = places.find((each) => typeof each[name] === 'function');
  if (place) return place[name].bind(place);
  const there = new Set(places.flatMap((each) => Object.keys(each).filter((key) => typeof each[key] === 'function')));
  const told = [...there].sort().join(', ') || 'none';
  throw new LoadFailed('NoSuchHandler', `no function '${name}' is exported by '${path.basename(file)}'; there is ${told}`);
}

module.exports = { LoadFailed, loadFunction };
