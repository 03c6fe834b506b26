"""A server on the loopback interface that speaks the chat-completions API, and misbehaves on demand."""

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    """One HTTP response: a body as it is sent, and how.

    `drip` seconds lie between two bytes, `delay` seconds before the first; `drop` closes the connection in the middle
    of the body.
    """

    body: str | bytes
    status: int = 200
    headers: dict = field(default_factory=dict)
    content_type: str = "application/json"
    drip: float = 0.0
    delay: float = 0.0
    drop: bool = False


def completion(*texts, finish="stop", usage=(20, 5)):
    """A good completion with these texts."""
    choices = [
        {"index": index, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
        for index, text in enumerate(texts)
    ]
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices}
    if usage:
        body["usage"] = {
            "prompt_tokens": usage[0],
            "completion_tokens": usage[1] * len(texts),
            "total_tokens": usage[0] + usage[1] * len(texts),
        }
    return Answer(json.dumps(body))


def failure(status, message, param=None, **headers):
    """An error in OpenAI's form; headers with _ for -."""
    body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": None}}
    return Answer(json.dumps(body), status, {name.replace("_", "-"): value for name, value in headers.items()})


def as_json(value, status=200, **headers):
    """A body of JSON; headers with _ for -."""
    return Answer(json.dumps(value), status, {name.replace("_", "-"): text for name, text in headers.items()})


@dataclass
class Seen:
    """What the server got: bodies and headers, the most requests under way at once, and whether a client hung up."""

    bodies: list = field(default_factory=list)
    headers: list = field(default_factory=list)
    paths: list = field(default_factory=list)
    busiest: int = 0
    hung_up: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving(behaviour):
    """Serve `behaviour(body, number) -> Answer` (number counts from 0); yields (base_url, Seen)."""
    seen, lock, busy, over = Seen(), threading.Lock(), [0], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(seen.bodies)
                seen.bodies.append(body)
                seen.headers.append(self.headers)
                seen.paths.append(self.path)
                busy[0] += 1
                seen.busiest = max(seen.busiest, busy[0])
            try:
                self.answer(behaviour(body, number))
            except OSError:
                seen.hung_up.set()
                self.close_connection = True
            finally:
                with lock:
                    busy[0] -= 1

        def answer(self, answer):
            over.wait(answer.delay)
            data = answer.body.encode() if isinstance(answer.body, str) else answer.body
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(data)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if answer.drop:
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
            elif answer.drip:
                for byte in data:
                    if over.is_set():
                        break
                    self.wfile.write(bytes([byte]))
                    time.sleep(answer.drip)
            else:
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", seen
    finally:
        over.set()
        server.shutdown()
        server.server_close()
