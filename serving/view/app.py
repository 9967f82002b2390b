"""A page for this computer on which slices are dropped and masks looked at.

The page is three plain files beside this one. It posts each file here as it is; here it is read as
``serving predict`` reads it, and sent to the server by gRPC.
"""

import base64
import time
from pathlib import Path

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from preprocessing.images.reading import UnreadableImageError, decode_slice
from serving.client import SegmentationClient, mask_of_pixels
from serving.config import ViewConfig
from serving.errors import CallError
from serving.mask_files import png_of, png_of_mask
from trainer.postprocessing import clean_mask

MEBIBYTE = 2**20
FOLDER = Path(__file__).parent

_LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
_SECURITY_HEADERS = {
    # Nothing is loaded from elsewhere, and nobody frames the page.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def make_app(config: ViewConfig, client: SegmentationClient) -> Flask:
    """Makes the application.

    Args:
        config: limits, and what is done around the model.
        client: of the server that segments; not closed here.

    Returns:
        A WSGI application: ``GET /`` is the page, ``POST /segment?name=…`` takes the bytes of a
        file and answers with JSON: sizes, areas in pixels, milliseconds, the version that answered,
        and slice and mask as PNG in base64; of a failure, ``error``.
    """
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = config.max_upload_mib * MEBIBYTE

    @app.before_request
    def refuse_strangers() -> tuple[Response, int] | None:
        # A page of another site may send requests here, or have its own name point here.
        host = request.host.rsplit(":", 1)[0]
        origin = request.headers.get("Origin")
        if host not in _LOCAL_NAMES or origin not in (None, f"http://{request.host}"):
            return jsonify(error="this page answers to this computer only"), 403
        return None

    @app.after_request
    def protect(response: Response) -> Response:
        response.headers.update(_SECURITY_HEADERS)
        return response

    @app.get("/")
    def page() -> Response:
        return Response((FOLDER / "page.html").read_text(encoding="utf-8"), mimetype="text/html")

    @app.get("/page.js")
    def script() -> Response:
        return Response(
            (FOLDER / "page.js").read_text(encoding="utf-8"), mimetype="text/javascript"
        )

    @app.get("/page.css")
    def style() -> Response:
        return Response((FOLDER / "page.css").read_text(encoding="utf-8"), mimetype="text/css")

    @app.get("/about")
    def about() -> Response:
        return jsonify(
            target=config.target,
            model_name=config.model_name,
            max_upload_mib=config.max_upload_mib,
            flips=config.flip_set,
            postprocess=config.postprocess,
        )

    @app.post("/segment")
    def segment() -> Response | tuple[Response, int]:
        name = request.args.get("name", "slice")
        try:
            image = decode_slice(request.get_data(), source=name)
        except UnreadableImageError as error:
            return jsonify(error=str(error)), 422
        start = time.perf_counter()
        try:
            mask = mask_of_pixels(image, client=client, flips=config.flip_set)
        except CallError as error:
            return jsonify(error=str(error)), 502
        milliseconds = 1000 * (time.perf_counter() - start)
        if config.postprocess:
            mask = clean_mask(mask, image)
        lung_area_px = int(mask.sum())
        return jsonify(
            name=name,
            height=image.shape[0],
            width=image.shape[1],
            lung_area_px=lung_area_px,
            lung_fraction=round(lung_area_px / mask.size, 6),
            milliseconds=round(milliseconds, 2),
            model_version=client.answered_version,
            slice_png=base64.b64encode(png_of(image)).decode("ascii"),
            mask_png=base64.b64encode(png_of_mask(mask)).decode("ascii"),
        )

    @app.errorhandler(HTTPException)
    def tell(error: HTTPException) -> tuple[Response, int]:
        code = error.code or 500
        message = error.description or error.name
        if code == 413:  # noqa: PLR2004
            message = f"the file has more than {config.max_upload_mib} MiB; see --max-upload-mib"
        return jsonify(error=message), code

    return app
