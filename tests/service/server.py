"""The service as it runs: uvicorn in a thread, on a port of its own on loopback."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.service.app import create_app
from wan_fixes.service.options import ServeOptions
from wan_fixes.service.serving import listen, server_of


@contextlib.contextmanager
def running(ensurer: ModelEnsurer, options: ServeOptions | None = None, **settings: Any) -> Iterator[str]:
    """The address of a server that runs until the end of the block."""
    options = options or ServeOptions(port=0)
    with listen(options) as listener:
        server = server_of(create_app(ensurer, hosts=options.names, token=options.token, **settings), options)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.002)
            yield options.url(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()
