// The entry of a Worker Front package around a function of serverless-benchmarks.
"use strict";

const { handler } = require("./function");

exports.handle = (event, context) => handler(event);
