// The hostile functions' one handler: runs the attack that the event names. What it returns is a list of
// what it got through with; behind walls that hold it is empty.
'use strict';

exports.handler = async (event) => {
  const [file, name] = event.attack.split('.');
  return require(`./${file}.js`)[name](event);
};
