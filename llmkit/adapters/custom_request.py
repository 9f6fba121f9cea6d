"""What the adapters share whose SDK can send a custom request: OpenAI's and Anthropic's.

Both SDKs document `client.post(path, body=…, cast_to=…)` for requests that they have no method
for. It sends what their typed methods send, without walking the type hints of every message, and
with `cast_to=httpx2.Response` it hands out the HTTP reply, which is read here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from llmkit.adapters.vendor_adapter import VendorAdapter
from llmkit.adapters.vendor_error import VendorError
from llmkit.adapters.wire import (
    drain,
    end_mark_missing,
    lay_over,
    read_count,
    read_event,
    read_instead_of_stream,
    read_json,
    read_part,
    readable,
    sse_events,
)
from llmkit.errors import ContentFilterError, LLMError, ProviderError
from llmkit.request import Request
from llmkit.streams import ChunkSource
from llmkit.tokenizer import TokenCount
from llmkit.types import Chunk, Completion

if TYPE_CHECKING:
    import httpx2

__all__ = ["CustomRequestAdapter", "StreamedAnswer"]


class StreamedAnswer(Protocol):
    """What a stream's events add up to."""

    def add(self, event: Mapping[str, Any]) -> str:
        """Takes one event and returns the text in it."""

    @property
    def has_end_mark(self) -> bool:
        """Whether the vendor has said that the answer is at its end."""

    @property
    def is_over(self) -> bool:
        """Whether no further event matters."""

    def cut_off(self, category: str) -> None:
        """Ends the answer: the vendor's filter has said, by an error, that nothing more comes."""

    def completion(self, headers: Mapping[str, str]) -> Completion:
        """Returns the whole answer."""


class CustomRequestAdapter(VendorAdapter):
    """A vendor whose SDK can send a custom request."""

    path: ClassVar[str]
    ping_path: ClassVar[str]
    end_mark: ClassVar[str]

    @abstractmethod
    def _client(self) -> Any:
        """Returns the SDK's client."""

    @abstractmethod
    def _say_request(self, request: Request, *, stream: bool) -> dict[str, Any]:
        """Says a request in the vendor's words, without the vendor's own parameters."""

    @abstractmethod
    def _read_reply(self, raw: dict[str, Any], headers: Mapping[str, str]) -> Completion:
        """Reads a plain reply."""

    @abstractmethod
    def _begin_answer(self) -> StreamedAnswer:
        """Returns what a stream's events are added to."""

    def _generate_text(self, request: Request) -> Completion:
        response = self._post(request, stream=False)
        raw = read_json(response.content, response.headers.get("content-type", ""))
        return self._read_whole(raw, response.headers)

    def _read_whole(self, raw: dict[str, Any], headers: Mapping[str, str]) -> Completion:
        if raw.get("error"):  # with status 200: routers say so that the model behind them failed
            raise self._reported_error(raw)
        with readable(billed=raw.get("usage")):
            return self._read_reply(raw, headers)

    def _stream_text(self, request: Request) -> ChunkSource:
        response = self._post(request, stream=True)
        with self._vendor_errors():
            whole = read_instead_of_stream(response)
        if whole is not None:
            return (yield from self._hand_out(self._read_whole(whole, response.headers)))
        answer = self._begin_answer()
        began = False
        with self._vendor_errors():
            events = sse_events(response.iter_raw())  # decompressed by the pool already
            for name, data in events:
                if data == b"[DONE]":
                    break
                event = read_event(data)
                if name == b"error" or event.get("error"):
                    error = self._reported_error(event)
                    if not began or not isinstance(error, ContentFilterError):
                        raise error
                    # Said by a finish reason, it would be an answer that was cut off, too.
                    answer.cut_off(error.category or "content_filter")
                    break
                text = read_part(answer.add, event, "usage")
                if text:
                    began = True
                    yield Chunk(text)
                if answer.is_over:
                    break
        if not answer.has_end_mark:
            raise end_mark_missing(self.end_mark)
        drain(events)
        with readable(billed=True):
            return answer.completion(response.headers)

    def _hand_out(self, reply: Completion) -> ChunkSource:
        """Hands out an answer that came in one piece."""
        if reply.text:
            yield Chunk(reply.text)
        note = "the vendor sent the answer whole instead of streaming it"
        reply.warnings = (*reply.warnings, note)
        return reply

    def _post(self, request: Request, *, stream: bool) -> httpx2.Response:
        import httpx2

        body = self._say_request(request, stream=stream)
        lay_over(body, request.vendor_parameters)
        lay_over(body, request.extra_body)
        with self._vendor_errors():
            response: httpx2.Response = self._client().post(
                self.path,
                body=body,
                cast_to=httpx2.Response,
                options={"headers": request.extra_headers} if request.extra_headers else {},
                stream=stream,
            )
            return response

    def _post_for_count(self, path: str, body: Mapping[str, Any]) -> TokenCount:
        """Sends a request to an endpoint that counts tokens, and reads its answer."""
        import httpx2

        with self._vendor_errors():
            response: httpx2.Response = self._client().post(
                path, body=body, cast_to=httpx2.Response
            )
        raw = read_json(response.content, response.headers.get("content-type", ""))
        if raw.get("error"):
            raise self._reported_error(raw)
        return read_count(raw, "input_tokens")

    def _ping(self) -> None:
        import httpx2

        with self._vendor_errors():
            self._client().get(self.ping_path, cast_to=httpx2.Response)

    def _reported_error(self, report: Mapping[str, Any]) -> LLMError:
        """Returns the error that a reply of status 200, or an event of a stream, reports."""
        error = VendorError.from_body(report, request_id=report.get("request_id"))
        return self._to_error(error) or ProviderError(error.message)
