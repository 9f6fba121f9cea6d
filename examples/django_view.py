"""A Django project in one file, whose view answers in time: its deadline is below the worker's.

python examples/django_view.py [--fake]    then: curl 'http://127.0.0.1:8000/ask?q=Why'
gunicorn --workers 4 --timeout 30 django_view:application
"""

import logging
import os

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.http import require_GET

import llmkit

settings.configure(
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY", "for this example only"),
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
)
django.setup()

logger = logging.getLogger(__name__)
client = llmkit.Client()  # one for all threads; it opens nothing before the first call

DEADLINE = 20  # seconds; gunicorn kills a worker that is silent for 30


@require_GET
def ask(request: HttpRequest) -> JsonResponse:
    question = request.GET.get("q", "").strip()
    if not question:
        return JsonResponse({"error": "ask something: ?q=…"}, status=400)
    try:
        with llmkit.deadline(DEADLINE):  # for everything in here together, however many calls
            topic = client.complete(f"Name the topic: {question}", max_tokens=10)
            reply = client.complete(question, max_tokens=200)
    except llmkit.LLMTimeoutError:
        return JsonResponse({"error": "that took too long"}, status=504)
    except llmkit.LLMError as error:
        logger.warning("%s", error)
        return JsonResponse({"error": error.code, "retry_after": error.retry_after}, status=503)
    return JsonResponse({"topic": topic.text, "answer": reply.text, "model": reply.model})


urlpatterns = [path("ask", ask)]
application = get_wsgi_application()

if __name__ == "__main__":
    from _fake import prepare

    prepare("Because of the weather.")
    port = os.environ.get("PORT", "8000")
    execute_from_command_line(["django_view", "runserver", "--noreload", f"127.0.0.1:{port}"])
