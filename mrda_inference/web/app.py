"""What the page asks for and what it gets: the routes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from mrda_inference.chosen_idr import RANGES
from mrda_inference.image_file import Picture
from mrda_inference.web import texts
from mrda_inference.web.archive import zip_chunks
from mrda_inference.web.jobs import Job, JobQueue, QueueFullError
from mrda_inference.web.models import (
    Model,
    Preview,
    Whole,
    chosen_degradation,
    open_picture,
    output_options,
    result_name,
)
from mrda_inference.web.query import number
from mrda_inference.web.security import Guard
from mrda_inference.web.store import MOST_UPLOAD, Photo, Store, StoreFullError
from mrda_inference.web.views import Box, Recent, after_view, before_view, jpeg, png
from mrda_utils import __version__
from mrda_utils.errors import UserError

FORMATS = ("png", "jpg", "webp")
UPLOAD_SECONDS = 900  # that a file may take to arrive
GONE = "the server has deleted this, as it does a minute after a result was fetched; upscale it again"
THUMBNAIL = 1600  # pixels a side


class Page:
    """The routes and what they work on.

    Args:
        models: what visitors can choose, the default first.
        store: photographs.
        is_known: whether a Host header names this server.
        auth: `user:password`, or None.
    """

    def __init__(
        self, models: list[Model], store: Store, is_known: Callable[[str], bool], auth: str | None = None
    ) -> None:
        self.models = {model.name: model for model in models}
        self.store, self.queue = store, JobQueue(self._finished)
        store.is_busy = self.queue.is_busy
        self._pictures, self._results = Recent(), Recent()
        routes = [
            Route("/", lambda request: FileResponse(Path(__file__).with_name("page.html"))),
            Route("/about", self.about),
            Route("/photos", self.upload, methods=["POST"]),
            Route("/photos/{photo}", self.delete, methods=["DELETE"]),
            Route("/photos/{photo}/thumbnail", self.thumbnail),
            Route("/photos/{photo}/preview", self.preview, methods=["POST"]),
            Route("/photos/{photo}/upscale", self.upscale, methods=["POST"]),
            Route("/jobs/{job}", self.cancel, methods=["DELETE"]),
            Route("/jobs/{job}", self.status),
            Route("/jobs/{job}/view/{side}", self.view),
            Route("/jobs/{job}/file", self.file),
            Route("/zip", self.zip),
            Mount("/static", StaticFiles(directory=Path(__file__).with_name("static"))),
        ]
        handlers = dict.fromkeys((UserError, ValueError, TimeoutError, ClientDisconnect), _refused)
        guard = Middleware(Guard, is_known=is_known, auth=auth)
        self.app = Starlette(routes=routes, middleware=[guard], exception_handlers=handlers)

    def sweep(self) -> None:
        """Take away what is over."""
        for photo in self.store.sweep():
            self._forget(photo)

    # ------------------------------------------------------------------------------------------------------ answers
    async def about(self, request: Request) -> Response:
        """Version, models, formats, and which degradations can be chosen."""
        models = [
            {"name": model.name, "scale": model.scale, "purpose": model.purpose} for model in self.models.values()
        ]
        return JSONResponse({"version": __version__, "models": models, "formats": FORMATS, "ranges": RANGES})

    async def upload(self, request: Request) -> Response:
        """Take a file as the body of a request, its name in the query."""
        try:
            size = int(request.headers["content-length"])
        except (KeyError, ValueError):
            _refuse(411, "how many bytes?")
        name = request.query_params.get("name", "")
        if size > MOST_UPLOAD:
            _refuse(413, f"{name}: more than {MOST_UPLOAD >> 20} MiB; mrda-upscale takes larger files")
        with self.store.arriving(name, size) as photo:
            await asyncio.wait_for(_receive(request, photo.source, size), UPLOAD_SECONDS)
            picture = await run_in_threadpool(self._picture, photo)
            photo.sides = picture.colour.shape[:2]
        return JSONResponse(
            {"id": photo.id, "name": photo.name, "height": photo.sides[0], "width": photo.sides[1]}, 201
        )

    async def delete(self, request: Request) -> Response:
        """Take away a photograph and end the work on it."""
        self._forget(self._photo(request))
        return Response(status_code=204)

    def thumbnail(self, request: Request) -> Response:
        """The photograph as browsers show it, whatever its format."""
        photo = self._photo(request)
        most = min(number(request.query_params, "most", int, THUMBNAIL), THUMBNAIL)
        box = Box.within({"most": most}, photo.sides)
        return _picture(before_view(self._picture(photo).colour, photo.sides, box))

    async def preview(self, request: Request) -> Response:
        """Begin to upscale a region, around `x` and `y`, shares of width and height."""
        photo, model = self._photo(request), self._model(request)
        column, row = (number(request.query_params, key, float, 0.5) for key in ("x", "y"))
        if not (0 <= column <= 1 and 0 <= row <= 1):
            _refuse(400, f"x {column}, y {row}: must be 0 to 1")
        task = chosen_degradation(request.query_params)
        job = Job(photo, "preview", lambda job: model.preview(self._picture(photo), column, row, task))
        return JSONResponse({"job": self.queue.submit(job).id}, 202)

    async def upscale(self, request: Request) -> Response:
        """Begin to upscale the whole photograph; the query has the options of mrda-upscale."""
        photo, model, query = self._photo(request), self._model(request), request.query_params
        suffix, output, task = query.get("format", "png"), output_options(query), chosen_degradation(query)
        if suffix not in FORMATS:
            _refuse(400, f"format {suffix}: choose {', '.join(FORMATS)}")
        name = result_name(photo.name, output, model.scale, suffix)
        self.store.check_room()
        photo.fetched = None

        def work(job: Job) -> Whole:
            self.store.check_room()  # others may have taken it meanwhile
            whole, pixels = model.whole(job, job.folder / name, output, task)
            self._results.put(job, pixels)
            return whole

        return JSONResponse({"job": self.queue.submit(Job(photo, "whole", work)).id}, 202)

    async def status(self, request: Request) -> Response:
        """How far a job is, and what came of it."""
        job = self._job(request)
        progress = self.queue.status(job)  # first: who hears that a job is done hears what came of it
        about: dict[str, Any] = {}
        if isinstance(job.result, Whole):
            height, width = job.result.sides
            size = job.result.file.stat().st_size if job.result.file.exists() else 0
            about = {"name": job.result.file.name, "bytes": size, "notes": job.result.notes}
        elif isinstance(job.result, Preview):
            height, width = job.result.after.shape[:2]
            about = await run_in_threadpool(job.result.about)
        sides = {"height": height, "width": width} if about else {}
        return JSONResponse({**progress, **about, **sides})

    async def cancel(self, request: Request) -> Response:
        """End a job."""
        self.queue.cancel(self._job(request))
        return Response(status_code=204)

    def view(self, request: Request) -> Response:
        """A rectangle of a result, `after` or `before`, at the size that is asked for."""
        job, side = self._job(request), request.path_params["side"]
        if job.result is None or side not in ("before", "after"):
            _refuse(404, "nothing to see yet")
        self.store.get(job.photo.id)
        if isinstance(job.result, Preview):
            return Response(png(getattr(job.result, side)), media_type="image/png")
        sides = job.result.sides
        box = Box.within(dict(request.query_params), sides)
        if side == "before":
            return _picture(before_view(self._picture(job.photo).colour, sides, box))
        return _picture(after_view(self._results.get(job, lambda: _read(job.result.file)), box))

    def file(self, request: Request) -> Response:
        """The result; once it has been sent, the photograph goes within a minute."""
        job = self._job(request)
        if not (isinstance(job.result, Whole) and job.result.file.is_file()):
            _refuse(404, "there is no result")
        path = job.result.file
        return FileResponse(path, filename=path.name, background=BackgroundTask(job.photo.was_fetched))

    def zip(self, request: Request) -> Response:
        """The results of all jobs that the query names, in one file."""
        jobs = [self.queue.get(id_) for id_ in request.query_params.getlist("job")]
        whole = [job for job in jobs if job is not None and isinstance(job.result, Whole) and job.result.file.is_file()]
        if not whole:
            _refuse(404, "there is no result")

        def sent() -> None:
            for job in whole:
                job.photo.was_fetched()

        chunks = zip_chunks([(job.result.file.name, job.result.file) for job in whole])
        headers = {"content-disposition": 'attachment; filename="mrda.zip"'}
        return StreamingResponse(chunks, media_type="application/zip", headers=headers, background=BackgroundTask(sent))

    # ------------------------------------------------------------------------------------------------------- inside
    def _photo(self, request: Request) -> Photo:
        return self.store.get(request.path_params["photo"]) or _refuse(404, GONE)

    def _job(self, request: Request) -> Job:
        return self.queue.get(request.path_params["job"]) or _refuse(404, GONE)

    def _model(self, request: Request) -> Model:
        name = request.query_params.get("model") or next(iter(self.models))
        return self.models.get(name) or _refuse(400, f"model {name}: choose {', '.join(self.models)}")

    def _picture(self, photo: Photo) -> Picture:
        try:
            return self._pictures.get(photo, lambda: open_picture(photo.source))
        except UserError as error:
            raise UserError(photo.in_own_words(str(error))) from error

    def _forget(self, photo: Photo) -> None:
        for job in self.queue.forget(photo):
            self._results.forget(job)
        self._pictures.forget(photo)
        self.store.delete(photo)

    def _finished(self, job: Job) -> None:
        job.photo.touch()
        if job.state != "done":
            self._results.forget(job)
            shutil.rmtree(job.folder, ignore_errors=True)
        if self.store.get(job.photo.id) is None:  # deleted meanwhile, and its folder may have been made again
            self.store.delete(job.photo)


def _refuse(code: int, message: str) -> NoReturn:
    raise HTTPException(code, message)


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, TimeoutError | ClientDisconnect):
        return Response("the photograph did not arrive", 408, media_type="text/plain")
    code = 503 if isinstance(error, StoreFullError | QueueFullError) else 422
    return Response(texts.of_page(str(error)), code, media_type="text/plain")


async def _receive(request: Request, path: Path, size: int) -> None:
    with path.open("wb") as file:
        async for chunk in request.stream():
            size -= len(chunk)
            if size < 0:
                _refuse(413, "more bytes than were announced")
            await run_in_threadpool(file.write, chunk)
    if size > 0:
        _refuse(400, "fewer bytes than were announced")


def _picture(image: np.ndarray) -> Response:
    return Response(jpeg(image), media_type="image/jpeg")


def _read(path: Path) -> np.ndarray:
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    return pixels.reshape(*pixels.shape[:2], -1)
