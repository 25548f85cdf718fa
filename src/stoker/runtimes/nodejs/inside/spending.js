// Processor time of the calls in a shared sandbox, each a session of processes, as far as /proc tells.
'use strict';

const fs = require('fs');

const LOOK_MS = 50;
const TICK_NS = 1e9 / 100; // USER_HZ: the same on every machine that Node.js runs on
const SESSION = 3; // behind the name; then from 11 on the times, its own and its reaped children's
const TIMES = [11, 12, 13, 14];

// Nanoseconds used by the processes of each session that live, and by what they have reaped.
function bySession() {
  const used = new Map();
  for (const name of fs.readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = fs.readFileSync(`/proc/${name}/stat`, 'latin1');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      const ticks = TIMES.reduce((sum, at) => sum + Number(fields[at]), 0);
      const session = Number(fields[SESSION]);
      used.set(session, (used.get(session) || 0) + ticks * TICK_NS);
    } catch {
      // It has ended, or is nobody's we may see.
    }
  }
  return used;
}

module.exports = { LOOK_MS, bySession };
