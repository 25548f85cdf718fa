// Attacks on memory.
'use strict';

exports.takes_all = () => {
  const held = [];
  for (;;) held.push(Buffer.alloc(1 << 20, held.length));
};

exports.takes_all_of_the_heap = () => {
  const held = [];
  for (;;) held.push({ number: held.length, text: `text ${held.length}` });
};

exports.recurses_without_end = () => {
  const deeper = () => [deeper()];
  return deeper();
};

exports.result_that_is_deep = () => {
  let nest = [];
  for (let i = 0; i < 100_000; i++) nest = [nest];
  return nest;
};
