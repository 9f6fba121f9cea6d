"""What every adapter over a vendor's SDK shares: its key, its client, its errors, its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from llmkit.adapters.base import BaseLLMAdapter, Key
from llmkit.adapters.error_table import to_llm_error
from llmkit.adapters.sdk_clients import forget_frames, hide_keys, shared_client, without_keys
from llmkit.adapters.sdk_imports import begin_import, import_sdk
from llmkit.adapters.vendor_error import VendorError
from llmkit.connection_pool import begin_reading_certificates, get_connection_pool
from llmkit.errors import ConfigurationError, ContentFilterError, LLMError
from llmkit.types import Completion, FinishReason, ToolCall, Usage

if TYPE_CHECKING:
    import httpx2

    from llmkit.errors import ErrorCode

__all__ = ["VendorAdapter"]

S = TypeVar("S")


class VendorAdapter(BaseLLMAdapter):
    """A vendor that is reached through its SDK."""

    # The SDK's module, and the extra of llmkit that installs it.
    sdk_module: ClassVar[str]
    extra: ClassVar[str]
    # The SDK's exception classes; see `error_table`.
    error_classes: ClassVar[Mapping[str, ErrorCode | None]]
    # The vendor's words for why a model stopped.
    finish_words: ClassVar[Mapping[str, FinishReason]]
    # The setting that holds the key, and whether nothing can be asked without it.
    key_variable: str | None
    key_required: bool = True

    def load_ahead(self) -> None:
        """Begins to import the SDK, without waiting for it."""
        if not self.initialized:
            begin_import(self.sdk_module, first=begin_reading_certificates)

    def _prepare(self) -> None:
        self._find_key()  # first: without a key nobody has to wait for the SDK
        self.load_ahead()
        self._import_sdk()

    def _import_sdk(self) -> Any:
        return import_sdk(self.sdk_module, self.extra)

    def _find_key(self) -> Key:
        """Finds the key, or the function that returns it, without calling that.

        Raises:
            ConfigurationError: There is none, though the vendor asks for one.
        """
        key = self._api_key
        if key is None:
            key = self.settings.api_key(self.provider)
        if key is None and self.key_variable is not None:
            key = self.settings.variable(self.key_variable)
        if self.key_required and not key:
            raise self._no_key()
        return key

    def _resolve_key(self) -> str:
        """Returns the key to send.

        Raises:
            ConfigurationError: There is none, though the vendor asks for one, or it is something
                that no HTTP header can carry.
        """
        key = self._find_key()
        if callable(key):
            key = key()
        if not key:
            if self.key_required:
                raise self._no_key()
            return "none"  # the SDKs insist on some text
        if not isinstance(key, str) or not all("!" <= letter <= "~" for letter in key.strip()):
            key = None  # error reports that show local variables would show it
            raise ConfigurationError(
                f"the key for {self.provider} can't be used; expected a text of printable ASCII "
                "characters without spaces and line breaks",
                provider=self.provider,
                model=self.model,
            )
        return key.strip()

    def _no_key(self) -> ConfigurationError:
        return ConfigurationError(
            f"no key for {self.provider}: set {self.key_variable} (in the environment or in .env), "
            "or pass api_key= to get_adapter(…). Without any key, the embedded model can be asked: "
            "model='local:'",
            provider=self.provider,
            model=self.model,
        )

    def _sdk_client(self, base_url: str, build: Callable[[str, httpx2.Client], S]) -> S:
        """Returns the process's SDK client for this vendor, address and key.

        Args:
            base_url: The address.
            build: Makes the client, given the key and the HTTP client that it must use.
        """
        key = self._resolve_key()
        # The provider's own pool, unless this adapter was given an address of its own.
        pool = get_connection_pool(self.provider, None if self.api_base is None else base_url)
        return shared_client((type(self), base_url, key), pool, lambda: build(key, pool))

    @contextmanager
    def _vendor_errors(self) -> Iterator[None]:
        """Turns the SDK's exceptions into `LLMError`s."""
        try:
            yield
        except LLMError:
            raise
        except Exception as error:
            if isinstance(error.__cause__, LLMError):  # our own, raised below the SDK
                raise error.__cause__ from None
            hide_keys(error)
            translated = self._translate(error)
            if translated is None:
                raise  # not an SDK's: a programming error should look like one
            forget_frames(error)
            raise translated from error

    def _translate(self, error: Exception) -> LLMError | None:
        # The SDKs wrap the HTTP client's errors, which say more: connect or read, and why.
        cause = error.__cause__
        if type(cause).__module__.startswith("httpx2") and not hasattr(error, "status_code"):
            error = cause  # type: ignore[assignment]
        return self._to_error(VendorError.from_exception(error))

    def _to_error(self, error: VendorError) -> LLMError | None:
        category = None if error.category is None else without_keys(error.category)
        return to_llm_error(
            error._replace(message=without_keys(error.message), category=category),
            self.error_classes,
            provider=self.provider,
            model=self.model,
            successor=self.info.successor,
        )

    def _completion(
        self,
        *,
        text: str,
        finish: str | None,
        usage: Usage,
        calls: tuple[ToolCall, ...],
        request_id: str | None,
        raw: dict[str, Any],
        refusal: str | None = None,
        explanation: str = "",
    ) -> Completion:
        """Puts an answer together.

        A filtered answer of which nothing came is an error for every vendor, whether it says so by
        an error, by a finish reason or by leaving the answer out: nobody asked for an empty text,
        it must not win a race nor be cached, and what handles refused prompts is needed only once.
        As soon as there is some text it is an answer, which says that it was cut off or refused.

        Args:
            text: What the model said.
            finish: Why it stopped, in the vendor's word; None when the vendor did not say.
            usage: The tokens.
            calls: The tools that it calls.
            request_id: The vendor's id of the request.
            raw: The vendor's JSON.
            refusal: Why the answer was refused or filtered, where more is known than `finish` says.
            explanation: The vendor's sentence for it; "" without one.

        Raises:
            ContentFilterError: The answer was filtered, and nothing of it came.
            ValueError: There is nothing that could be an answer.
        """
        reason = "content_filter" if refusal else self.finish_words.get(finish or "")
        category: str | None = None
        warnings: tuple[str, ...] = ()
        if reason == "content_filter":
            category = without_keys(refusal or finish or "")
            if not text and not calls:
                raise self._refused(category, explanation, request_id)
            warnings = (f"the answer was refused or cut off for its content: {category}",)
        elif finish is None and not text and not calls:
            raise ValueError("there is no text, no tool call and no finish reason")
        elif reason is None:
            warnings = (f"the vendor's finish reason is {finish!r}",)
        elif reason == "stop" and calls:  # as some vendors say it when a tool had to be called
            reason = "tool_calls"
        return Completion(
            text=text,
            model=self.model,
            provider=self.provider,
            finish_reason=reason,
            content_filter_category=category,
            usage=usage,
            tool_calls=calls,
            warnings=warnings,
            request_id=request_id,
            raw=raw,
        )

    def _refused(
        self, category: str, explanation: str, request_id: str | None
    ) -> ContentFilterError:
        said = f" - {without_keys(explanation)[:1000]}" if explanation else ""
        return ContentFilterError(
            f"the vendor refused the request for its content: {category}{said}",
            category=category,
            provider=self.provider,
            model=self.model,
            request_id=request_id,
        )
