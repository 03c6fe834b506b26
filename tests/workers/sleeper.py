"""A worker that starts at once and sleeps as long as it is told to."""

import time

from workers.process import serve


def handle(header, arrays):
    time.sleep(header.get("sleep", 0))
    return header, arrays


if __name__ == "__main__":
    serve(handle)
