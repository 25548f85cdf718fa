"""Runs a function of serverless-benchmarks plainly, outside of any node: what a right answer is.

Usage: python reference.py FOLDER < events.json, a list; prints the list of results.
"""

import json
import sys

sys.path.insert(0, sys.argv[1])
from function import handler

print(json.dumps([handler(event) for event in json.load(sys.stdin)]))
