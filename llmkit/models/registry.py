"""The registry of this process: all records by provider and name, and how a name finds one."""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping
from typing import Any

from llmkit.models.entry_points import declared
from llmkit.models.info import BARE, ModelInfo, full_name
from llmkit.models.reading import read_record
from llmkit.settings import get_settings

__all__ = ["Registry", "get_registry", "remember"]

Key = tuple[str, str]
Record = Mapping[str, Any]


class Registry:
    """Records, read into a ModelInfo when they are first asked for.

    Args:
        document: What models.json holds: "models" by full names, and "defaults" by providers.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.defaults: Mapping[str, str] = document["defaults"]
        self._records: dict[Key, Record] = {}
        self._infos: dict[Key, ModelInfo] = {}
        self._aliases: dict[Key, Key] = {}
        # Whose model a bare name or alias is: the first one's, unless one of BARE has it, too.
        self._owners: dict[str, Key] = {}
        for name, record in document["models"].items():
            provider = record["provider"]
            self._add((provider, name.removeprefix(f"{provider}:")), record)

    def find(self, model: str) -> ModelInfo | None:
        """Finds a model.

        Args:
            model: A name or alias, bare or with its provider. A provider in the name counts before
                a bare name that looks like it; of several owners of a bare name, the first. A
                provider alone, as in "local:", has a default model.

        Returns:
            The model; None when there is none of that name.
        """
        key = self._key(model)
        if key is None and model.endswith(":") and model[:-1] in self.defaults:
            key = self._key(model + self.defaults[model[:-1]])
        return None if key is None else self._info(key)

    def put(self, name: str, facts: Record) -> ModelInfo:
        """Adds a model, or lays facts over what is known of one.

        Args:
            name: A name as for `find`. Where `facts` has a provider, it is that provider's model;
                else a known model, or one whose provider stands before the first colon.
            facts: The facts; those of a known model that aren't named stay.

        Returns:
            The model as it is now.

        Raises:
            UNREADABLE: See `read_record`. The registry is as it was.
        """
        key = self._key_for(name, facts.get("provider"))
        record = {**self._records.get(key, {}), "provider": key[0], **facts}
        info = read_record(key[1], record)
        self._infos[key] = info
        self._add(key, record)
        return info

    def all(self) -> list[ModelInfo]:
        """Returns all models, by provider; within one, as they were added."""
        keys = tuple(self._records)
        providers = list(dict.fromkeys(provider for provider, _ in keys))
        return [self._info(key) for key in sorted(keys, key=lambda key: providers.index(key[0]))]

    def providers(self) -> frozenset[str]:
        """Returns the providers of which a model is listed."""
        return frozenset(provider for provider, _ in tuple(self._records))

    def capabilities(self) -> frozenset[str]:
        """Returns every capability that some model has."""
        return frozenset().union(*(info.capabilities for info in self.all()))

    def names(self, provider: str | None = None) -> Iterator[str]:
        """Gives every name by which a model can be asked for, aliases included.

        Args:
            provider: Of this provider only, and bare; None for full names of all.
        """
        for owner, name in (*self._records, *self._aliases):
            if provider in (None, owner):
                yield name if provider else full_name(owner, name)

    def _key(self, model: str) -> Key | None:
        for separator in ":/":
            provider, found, name = model.partition(separator)
            if found and (key := self._own((provider, name))):
                return key
        return self._owners.get(model)

    def _own(self, key: Key) -> Key | None:
        return key if key in self._records else self._aliases.get(key)

    def _key_for(self, name: str, provider: str | None) -> Key:
        if not isinstance(name, str) or not name.strip():
            raise ValueError("expected a name")
        if provider is not None:
            key = (provider, name.removeprefix(f"{provider}:"))
            return self._own(key) or key
        known = self._key(name)
        if known:
            return known
        provider, _, bare = name.partition(":")
        if not (provider and bare):
            raise ValueError("provider= is missing")
        return provider, bare

    def _info(self, key: Key) -> ModelInfo:
        info = self._infos.get(key)
        if info is None:
            info = self._infos[key] = read_record(key[1], self._records[key])
        return info

    def _add(self, key: Key, record: Record) -> None:
        self._records[key] = record
        provider, name = key
        for each in (name, *(record.get("aliases") or ())):
            if each != name:
                self._aliases[provider, each] = key
            owner = self._owners.setdefault(each, key)
            if provider in BARE and owner[0] not in BARE:
                self._owners[each] = key


_shared: dict[str, Any] = {}


def get_registry() -> Registry:
    """Gives the registry of this process, read on first use.

    It is read anew, with what was registered since, when LLMKIT_MODELS_FILE has become another
    one by `reload_settings`.

    Raises:
        ConfigurationError: LLMKIT_MODELS_FILE, or another setting, can't be read.
    """
    file = get_settings().models_file
    state = _shared.get("state")
    if state is None or state[0] != file:
        fresh = _build(file)
        for name, facts in _shared.get("registered", ()):
            fresh.put(name, facts)
        if state is None:
            # setdefault is atomic: threads that come here together all get one registry.
            state = _shared.setdefault("state", (file, fresh))
        else:
            state = _shared["state"] = (file, fresh)
    made: Registry = state[1]
    return made


def remember(info: ModelInfo, facts: Record) -> None:
    """Keeps what was registered of a model for the case that the registry is read anew."""
    kept = (info.full_name, {**facts, "provider": info.provider})
    _shared.setdefault("registered", []).append(kept)


def _build(file: str | None) -> Registry:
    import json

    path = os.path.join(os.path.dirname(__file__), "models.json")
    with open(path, "rb") as stream:
        made = Registry(json.load(stream))
    entries = declared("llmkit.models")
    if entries or file is not None:
        from llmkit.models import additions

        additions.add_declared(made.put, entries)
        if file is not None:
            additions.add_file(made.put, file)
    return made
