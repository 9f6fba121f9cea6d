"""The cache: what calls do with it by themselves, and how to use it for values of your own.

python examples/manual_cache.py [--fake]

It is in this process's memory; LLMKIT_CACHE_URL=redis://… or sqlite:///… puts a shared store
behind it.
"""

from llmkit import Client, Completion, cache_result, cached, get_cache

from _fake import prepare

prepare("Paris.", "It is Paris.", "Paris, of course.")

client = Client()
QUESTION = "What is the capital of France?"


def show(reply: Completion) -> None:
    print(f"{reply.text!r} from {reply.cached or reply.provider}")


show(client.complete(QUESTION, max_tokens=200))
show(client.complete(QUESTION, max_tokens=200))  # the same answer, for nothing
show(client.complete(QUESTION, max_tokens=200, use_cache=False))  # a fresh one, not kept
show(client.complete(QUESTION, max_tokens=200, use_cache="refresh"))  # a fresh one, kept
show(client.complete(QUESTION, max_tokens=200))
# An answer that max_tokens cut off is not kept, and replaces none.

# Any JSON value, under a key of your own.
cache = get_cache()
cache.set("example:page:42", {"title": "Rain", "tags": ["weather"]}, ttl=600)  # seconds
page = cache.get("example:page:42")
page["title"] = "Snow"  # what you get is yours: the cached value stays as it was
print(cache.get("example:page:42"), cache.get("example:page:43", default="no such page"))
print("deleted:", cache.delete("example:page:42"))

cache_result("example:page:44", {"title": "Fog"})  # short for get_cache().set(…)


# A function of your own, called once for the same arguments, also by threads that come at once.
@cached(ttl=600)
def title_for(text: str) -> str:
    print("  asking for a title")
    return client.complete(f"Find a title for: {text}", max_tokens=10).text


print(title_for("It rained all day."), title_for("It rained all day."))

stats = cache.stats()
print(f"{stats['hits']} hits, {stats['misses']} misses, {stats['writes']} writes")
# clear_cache() would remove everything of LLMKIT_CACHE_NAMESPACE, for every process that shares it.
