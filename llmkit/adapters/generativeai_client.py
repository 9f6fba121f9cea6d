"""The client that google-generativeai is made of, sending over llmkit's connections.

By itself it sends with `requests` or gRPC, tries a 503 again for ten minutes, and has time-outs
that hold for each read. Its REST client asks a session for `get` and `post`; here this is an
`Exchange`, for one request each.
"""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from llmkit.adapters.wire import lay_over
from llmkit.errors import InvalidRequestError

if TYPE_CHECKING:
    import httpx2

__all__ = ["Exchange", "GenerativeAIClients"]

_SERVICES = "google.ai.generativelanguage_v1beta.services"


class GenerativeAIClients:
    """The SDK's clients for one address and key.

    Args:
        base_url: The address, without the API's version.
        version: The API's version, "v1" or "v1beta".
        key: The key.
        pool: What sends.
    """

    def __init__(self, base_url: str, version: str, key: str, pool: httpx2.Client) -> None:
        self._base_url = base_url
        self._version = version
        self.key = key
        self.pool = pool
        self._services = {
            service: _rest_client(service, base_url)
            for service in ("generative_service", "model_service")
        }

    def at_version(self, url: str) -> str:
        """Returns one of the SDK's URLs, all of which are v1beta's, for the version to be asked."""
        path = url.removeprefix(self._base_url).removeprefix("/v1beta/")
        return f"{self._base_url}/{self._version}/{path}"

    def client(self, service: str, session: Exchange) -> Any:
        """Returns a service's client that sends by a session of its own, at the cost of a copy."""
        client = copy.copy(self._services[service])
        client._session = session
        return client


class Exchange:
    """One request, sent in place of the session from `requests` that the SDK has by itself."""

    def __init__(self, clients: GenerativeAIClients, service: str) -> None:
        self._clients = clients
        self._service = service
        self._is_said = False
        self._reply: httpx2.Response | None = None
        self.extra_headers: Mapping[str, str] = {}
        self.extra_body: Mapping[str, Any] = {}
        self.parameters: dict[str, str] = {}

    def ask(self, method: str, message: Any) -> httpx2.Response:
        """Sends one of the SDK's requests; returns the reply, of which nothing was read yet.

        Raises:
            InvalidRequestError: The model's name does not fit into the SDK's URLs.
            Exception: One of google.api_core's, for an error status; or the HTTP client's.
        """
        send = getattr(self._clients.client(self._service, self), method)
        try:
            send(message)  # no retries: they come from the layer above this one in the SDK
        except ValueError as error:
            if self._is_said:
                raise
            raise InvalidRequestError(f"the SDK knows no URL for this request: {error}") from None
        assert self._reply is not None
        return self._reply

    def get(self, url: str, **arguments: Any) -> _Nothing:
        """As in `requests`."""
        return self._send("GET", url, **arguments)

    def post(self, url: str, **arguments: Any) -> _Nothing:
        """As in `requests`."""
        return self._send("POST", url, **arguments)

    def _send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        data: str | None = None,
        **_: Any,
    ) -> _Nothing:
        self._is_said = True
        # Left out: the SDK's parameter that asks for numbers in place of Google's words, and its
        # time-out, for which the Scope stands.
        if self.extra_body:
            body = json.loads(data or "{}")
            lay_over(body, self.extra_body)
            data = json.dumps(body)
        pool = self._clients.pool
        request = pool.build_request(
            method,
            self._clients.at_version(url),
            params=self.parameters,
            # The key isn't known to the SDK, whose log shows all headers that it was given.
            headers={**headers, "x-goog-api-key": self._clients.key, **self.extra_headers},
            content=data,
        )
        self._reply = reply = pool.send(request, stream=True)
        if not reply.is_success:
            reply.read()
            raise _status_error(reply)
        return _Nothing()


class _Nothing:
    """What the SDK gets to read in place of the reply."""

    status_code = 200
    content = b"{}"
    headers: ClassVar[dict[str, str]] = {}

    def iter_content(self, **_: Any) -> Iterator[str]:
        """As in `requests`."""
        return iter(())


def _rest_client(service: str, base_url: str) -> Any:
    """Makes the SDK's client for a service; nothing of the environment gets into it."""
    module = importlib.import_module(f"{_SERVICES}.{service}.transports")
    name = "".join(word.title() for word in service.split("_"))
    credentials = importlib.import_module("google.auth.credentials").AnonymousCredentials()
    return getattr(module, f"{name}RestTransport")(host=base_url, credentials=credentials)


def _status_error(reply: httpx2.Response) -> Exception:
    """Returns the SDK's own error for a reply's status, with the reply's JSON for the tables."""
    exceptions = importlib.import_module("google.api_core.exceptions")
    text = reply.text
    error: Any = exceptions.from_http_status(reply.status_code, text[:1000], response=reply)
    try:
        error.body = json.loads(text)
    except (ValueError, RecursionError):
        error.body = None
    return error  # type: ignore[no-any-return]  # the SDK has no types
