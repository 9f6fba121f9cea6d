"""Flask views that answer in time: their deadline is below the worker's.

python examples/flask_view.py [--fake]     then: curl 'http://127.0.0.1:5000/ask?q=Why'
gunicorn --workers 4 --timeout 30 flask_view:app
"""

import os

from flask import Flask, Response, jsonify, request

import llmkit

app = Flask(__name__)
client = llmkit.Client()  # one for all threads; it opens nothing before the first call

DEADLINE = 20  # seconds; gunicorn kills a worker that is silent for 30
STATUS = {
    llmkit.ErrorCode.LLM_RATE_LIMIT: 503,
    llmkit.ErrorCode.LLM_CIRCUIT_OPEN: 503,
    llmkit.ErrorCode.LLM_TIMEOUT: 504,
}


@app.get("/ask")
def ask() -> dict[str, str]:
    with llmkit.deadline(DEADLINE):  # for everything in here together, however many calls
        topic = client.complete(f"Name the topic: {request.args['q']}", max_tokens=10)
        reply = client.complete(request.args["q"], max_tokens=200)
    return {"topic": topic.text, "answer": reply.text, "model": reply.model}


@app.get("/stream")
def stream() -> Response:
    # Its first chunk is here before the status is sent, so that an error gets its own status.
    # No `with deadline` around what is sent later: a stream's time is its own argument.
    answer = client.stream(request.args["q"], max_tokens=200, timeout=DEADLINE)
    # A reader who leaves ends the vendor's work, too: Flask closes what it sends.
    return Response(answer.text_stream, mimetype="text/plain")


@app.errorhandler(llmkit.LLMError)
def failed(error: llmkit.LLMError) -> tuple[Response, int]:
    app.logger.warning("%s", error)
    response = jsonify(error=error.code)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(round(error.retry_after))
    return response, STATUS.get(error.code, 502)


if __name__ == "__main__":
    from _fake import prepare

    prepare("Because of the weather.")
    app.run(port=int(os.environ.get("PORT", "5000")))
