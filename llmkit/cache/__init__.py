"""The cache: answers, and any other JSON values, kept in memory and in a store behind it."""

from __future__ import annotations

from llmkit.cache.base import Allowance, Found, LLMCache, Lock
from llmkit.cache.memory import MemoryCache

__all__ = ["Allowance", "Found", "LLMCache", "Lock", "MemoryCache"]
