"""Reads streams of requests with h11 and with gunicorn: lines of JSON in, lines of JSON out.

In: {"id": 1, "hex": "474554..."}. Out: {"id": 1, "requests": [...], "end": "clean" | "partial" | what is wrong}.
"""

import json
import sys

import h11
from gunicorn.config import Config
from gunicorn.http.errors import NoMoreData
from gunicorn.http.parser import RequestParser


def text(value):
    return value.decode("latin-1") if isinstance(value, (bytes, bytearray)) else str(value)


def with_h11(data):
    requests, begun = [], False
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 24)
    connection.receive_data(data)
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                rest, _ = connection.trailing_data
                return requests, "partial" if begun or rest else "clean"
            if isinstance(event, h11.Request):
                begun = True
                fields = [[text(name), text(value)] for name, value in event.headers]
                request = {"method": text(event.method), "target": text(event.target), "fields": fields, "body": ""}
            elif isinstance(event, h11.Data):
                request["body"] += text(event.data)
            elif isinstance(event, h11.EndOfMessage):
                requests.append(request)
                begun = False
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
            elif event is h11.PAUSED:
                connection.start_next_cycle()
            else:
                return requests, repr(event)
    except h11.ProtocolError as error:
        return requests, repr(error)


def with_gunicorn(data):
    requests = []
    config = Config()
    # No field is dropped or given another meaning because of its name.
    config.set("header_map", "dangerous")
    config.set("forwarder_headers", "")
    config.set("secure_scheme_headers", {})
    config.set("limit_request_line", 0)
    config.set("limit_request_field_size", 0)
    config.set("limit_request_fields", 32768)
    parser = RequestParser(config, iter([data] if data else []), ("127.0.0.1", 1))
    try:
        for message in parser:
            body = b""
            while piece := message.body.read(1 << 20):
                body += piece
            fields = [[name, value] for name, value in message.headers]
            length = next((int(value) for name, value in fields if name.lower() == "content-length"), None)
            if length is not None and len(body) < length:
                return requests, "partial"
            requests.append({"method": message.method, "target": message.uri, "fields": fields, "body": text(body)})
        return requests, "clean"
    except (StopIteration, NoMoreData) as error:
        return requests, "partial" if getattr(error, "buf", None) else "clean"
    except Exception as error:
        return requests, repr(error)


READERS = {"h11": with_h11, "gunicorn": with_gunicorn}

read = READERS[sys.argv[1]]
for line in sys.stdin:
    stream = json.loads(line)
    requests, end = read(bytes.fromhex(stream["hex"]))
    print(json.dumps({"id": stream["id"], "requests": requests, "end": end}))
