"""What the adapters share whose SDK can send a custom request: OpenAI's and Anthropic's.

Both SDKs document `client.post(path, body=…, cast_to=…)` for requests that they have no method
for. It sends what their typed methods send, without walking the type hints of every message, and
with `cast_to=httpx2.Response` it hands out the HTTP reply, which is read here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from llmkit.adapters.base import BaseLLMAdapter
from llmkit.adapters.error_table import VendorError
from llmkit.adapters.wire import check_event_stream, read_json, readable
from llmkit.errors import LLMError, ProviderError
from llmkit.request import Request
from llmkit.streams import ChunkSource
from llmkit.types import Completion

if TYPE_CHECKING:
    import httpx2

__all__ = ["CustomRequestAdapter"]


class CustomRequestAdapter(BaseLLMAdapter):
    """A vendor whose SDK can send a custom request."""

    path: ClassVar[str]
    ping_path: ClassVar[str]

    @abstractmethod
    def _client(self) -> Any:
        """Returns the SDK's client."""

    @abstractmethod
    def _body(self, request: Request, stream: bool) -> dict[str, Any]:
        """Says a request in the vendor's words."""

    @abstractmethod
    def _read_reply(self, raw: dict[str, Any], headers: Mapping[str, str]) -> Completion:
        """Reads a plain reply."""

    @abstractmethod
    def _read_stream(self, response: httpx2.Response) -> ChunkSource:
        """Reads a streamed reply."""

    def _generate_text(self, request: Request) -> Completion:
        response = self._post(request, stream=False)
        raw = read_json(response.content, response.headers.get("content-type", ""))
        with readable():
            return self._read_reply(raw, response.headers)

    def _stream_text(self, request: Request) -> ChunkSource:
        response = self._post(request, stream=True)
        check_event_stream(response)
        with self._vendor_errors():
            return (yield from self._read_stream(response))

    def _post(self, request: Request, *, stream: bool) -> httpx2.Response:
        import httpx2

        with self._vendor_errors():
            response: httpx2.Response = self._client().post(
                self.path,
                body=self._body(request, stream),
                cast_to=httpx2.Response,
                options={"headers": request.extra_headers} if request.extra_headers else {},
                stream=stream,
            )
            return response

    def _ping(self) -> None:
        import httpx2

        with self._vendor_errors():
            self._client().get(self.ping_path, cast_to=httpx2.Response)

    def _event_error(self, event: Mapping[str, Any]) -> LLMError:
        """Returns the error that an event inside a stream reports."""
        error = VendorError.from_body(event, request_id=event.get("request_id"))
        return self._to_error(error) or ProviderError(error.message)
