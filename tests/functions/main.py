"""The entry of a Worker Front package around a function of serverless-benchmarks."""

from function import handler


def lambda_handler(event, context):
    return handler(event)
