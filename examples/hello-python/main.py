"""Greets whoever the event names."""

import platform


def lambda_handler(event, context):
    name = event.get("name", "World")
    print("greeting", name)  # kept with the call: stoker logs hello-python
    return {"greeting": f"Hello {name}", "from": f"Python {platform.python_version()}"}
