"""Who owns what, and what closes it.

python examples/resource_lifecycle.py [--fake]

Connections, SDK clients, the cache and the figures belong to the process; a Client is a light thing
in front of them, made where it is needed. At the end of the program all of it closes by itself.
"""

from llmkit import Client, cleanup_connection_pools, health_check, shutdown

from _fake import prepare

prepare("One two three four five six seven eight nine ten.")


def show(moment: str) -> None:
    """Prints the connections that are open."""
    pools = {name: pool["connections"] for name, pool in health_check().items()}
    print(f"{moment}: {pools}")


show("nothing is open yet")

with Client() as client:
    client.complete("Count to ten.", max_tokens=40)
    show("a call leaves its connection open for the next one")
show("closing a Client closes nothing that others may use")

with Client().stream("Count to eleven.", max_tokens=40) as stream:
    print("only the first chunk:", next(stream))
show("leaving a stream early closes its connection, so that nothing more is sent")

print(Client().complete("Count to twelve.", max_tokens=40))
cleanup_connection_pools()  # calls under way go on to their end
show("all connections are closed")

Client().complete("Count to thirteen.", max_tokens=40)
show("what is used again is opened again")

shutdown()  # connections, SDK clients, the embedded model; ends calls that other threads are making
show("after shutdown")
