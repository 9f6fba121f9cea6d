"""Stream: a model's answer while it is being written."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from types import TracebackType

from llmkit.errors import (
    CancelledError,
    ErrorCode,
    InvalidRequestError,
    LLMError,
    StreamInterruptedError,
)
from llmkit.scope import CallInterrupted, Scope, current_scope
from llmkit.threads import Once
from llmkit.types import Chunk, Completion

__all__ = ["ChunkSource", "Stream", "TextStream"]

# What an adapter gives: chunks, and at their end the whole completion as the return value.
ChunkSource = Generator[Chunk, None, Completion]


class Stream:
    """A streamed answer: an iterator of `Chunk`s, and a context manager that ends it.

        with client.stream("Tell me a story") as stream:
            for chunk in stream:
                print(chunk.text, end="")
        print(stream.completion.usage)

    Leaving the `with` block, `close()`, and dropping the last reference free the connection at
    once; the call is recorded as cancelled. `close()` may be called from another thread, also while
    one waits for a chunk.

    Args:
        source: The chunks; the request is under way already.
        first: The chunk that has arrived; None when the answer is empty and `source` is at its end.
        ended: The completion, when the answer was over before its first chunk.
        scope: The whole stream's time and cancel switch; it holds the open reply.
        idle_timeout: Seconds that each further chunk may take; None sets no limit.
        describe: Names the call in an error: adds provider and model.
        on_end: Told once how the stream ended: with its completion, or with an error.
        on_drop: Told instead of `on_end` when the stream is dropped unended, in the middle of
            anything: it must neither take a lock nor run what others have written. None does
            nothing.
    """

    def __init__(
        self,
        source: ChunkSource,
        *,
        first: Chunk | None,
        ended: Completion | None,
        scope: Scope,
        idle_timeout: float | None,
        describe: Callable[[LLMError], LLMError],
        on_end: Callable[[Completion | LLMError], object],
        on_drop: Callable[[LLMError], object] | None = None,
    ) -> None:
        self._on_drop = on_drop
        self._source = source
        self._first = first
        self._scope = scope
        self._idle_timeout = idle_timeout
        self._describe = describe
        self._on_end = on_end
        self._ended = Once()
        self._texts: list[str] = []
        self._reading = False
        self._completion: Completion | None = None
        self._error: LLMError | None = None
        if ended is not None:
            self._completion = ended
            self._end(ended)

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        if self._ended.happened:
            if self._error is not None:
                raise self._error
            raise StopIteration
        chunk, self._first = self._first, None
        if chunk is None:
            chunk = self._next_chunk()
        self._texts.append(chunk.text)
        return chunk

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        ended: Once | None = getattr(self, "_ended", None)  # Ctrl-C may have come before it
        if ended is not None and ended.is_first() and self._on_drop is not None:
            self._on_drop(CancelledError("the stream was dropped before its end"))

    @property
    def text(self) -> str:
        """The text that was handed out so far."""
        return "".join(self._texts)

    @property
    def text_stream(self) -> TextStream:
        """The rest of the answer as plain texts, as a web framework's response takes them."""
        return TextStream(self)

    @property
    def completion(self) -> Completion:
        """The whole answer, once the stream is at its end.

        Raises:
            StreamInterruptedError: The stream broke or was closed before its end, or has not been
                read to it; `.partial_text` is what was handed out.
        """
        if self._completion is not None:
            return self._completion
        raise self._describe(
            StreamInterruptedError(
                "the stream has not been read to its end"
                if self._error is None
                else f"the stream did not reach its end: {self._error.message}",
                partial_text=self.text,
            )
        )

    def close(self) -> None:
        """Ends the stream and frees its connection; a no-op at its end."""
        if not self._ended.happened:
            self._scope.cancel("the stream was closed")
            # A thread that waits for a chunk is awake now and closes the connection itself: to
            # close a socket under a thread that reads from it could make it read another's.
            if not self._reading:
                self._error = self._describe(CancelledError("the stream was closed before its end"))
                self._end(self._error)

    def _next_chunk(self) -> Chunk:
        """Waits for a chunk, inside a Scope of its own that is left again before returning."""
        outer = current_scope()
        limit = self._idle_timeout
        if outer is not None and outer.deadline is not None:
            left = outer.remaining() or 0.0
            limit = left if limit is None else min(limit, left)
        if self._reading:
            raise InvalidRequestError("another thread is reading this stream: one at a time")
        self._reading = True
        try:
            with self._scope.entered(), Scope(limit).entered():
                return next(self._source)
        except StopIteration as end:
            self._completion = end.value
            self._end(end.value)
            raise StopIteration from None
        except CallInterrupted as interruption:
            broken = self._broken(interruption.to_error())
            raise broken from broken.__cause__
        except LLMError as error:
            broken = self._broken(error)
            raise broken from broken.__cause__
        except BaseException as error:
            kind = LLMError if isinstance(error, Exception) else CancelledError
            self._error = self._describe(kind(f"the stream was ended by {error!r}"))
            self._end(self._error)
            raise
        finally:
            self._reading = False
            # Whoever closed the stream in this moment has left the rest to this thread.
            if self._scope.cancelled and not self._ended.happened:
                self._broken(CancelledError("the stream was closed while it was read"))

    def _broken(self, cause: LLMError) -> LLMError:
        """Ends the stream and returns the error to raise for it."""
        error = cause
        if cause.code is not ErrorCode.LLM_CANCELLED:
            error = StreamInterruptedError(
                f"the stream broke after {len(self.text)} characters: {cause.message}",
                partial_text=self.text,
                status=cause.status,
                request_id=cause.request_id,
                retry_after=cause.retry_after,
            )
            error.__cause__ = cause.__cause__ or cause
        self._error = self._describe(error)
        self._end(self._error)
        return self._error

    def _end(self, outcome: Completion | LLMError) -> None:
        if self._ended.is_first():
            self._scope.close_held()
            self._on_end(outcome)


class TextStream:
    """The texts of a stream, one for each chunk.

    A web framework closes what it sends when the browser has gone; that closes the stream.

    Args:
        stream: The stream.
    """

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """Returns the next text; raises what the stream does, CancelledError once it is closed."""
        return next(self._stream).text

    def close(self) -> None:
        """Ends the stream and frees its connection; a no-op at its end."""
        self._stream.close()
