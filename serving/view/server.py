"""Serves the page until Ctrl-C."""

from collections.abc import Callable

import waitress

from serving.client import SegmentationClient
from serving.config import ViewConfig
from serving.endpoint import Endpoint
from serving.errors import ListenError
from serving.view.app import MEBIBYTE, make_app

ADDRESS = "127.0.0.1"
"""Nobody else is to reach the page: it has no authentication."""


def serve_page(config: ViewConfig, *, on_ready: Callable[[str], None]) -> None:
    """Serves the page; returns when the process is interrupted.

    Args:
        config: which server it asks, and what it takes.
        on_ready: is told the address of the page once it answers.

    Raises:
        ListenError: if the port cannot be had.
        InputError: if a file of TLS cannot be read.
    """
    with SegmentationClient(Endpoint.of(config)) as client:
        try:
            server = waitress.create_server(
                make_app(config, client),
                host=ADDRESS,
                port=config.port,
                max_request_body_size=(config.max_upload_mib + 1) * MEBIBYTE,
                ident=None,
            )
        except OSError as error:
            raise ListenError(
                f"port {config.port} of {ADDRESS} cannot be had: {error.strerror}; give another "
                "--port, or 0 for a free one"
            ) from error
        on_ready(f"http://{ADDRESS}:{server.effective_port}")
        server.run()
