// Greets whoever the event names.
"use strict";

exports.handle = async (event, context) => {
  const name = event.name ?? "World";
  console.log("greeting", name); // kept with the call: stoker logs hello-node
  return { greeting: `Hello ${name}`, from: `Node.js ${process.versions.node}` };
};
