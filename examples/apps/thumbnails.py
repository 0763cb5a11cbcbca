"""A pipeline on images: each step is a deployment, and the arrays go from step to step.

`mesh run examples.apps.thumbnails:app`, then POST an array in numpy's file format to http://localhost:8000.
"""

from __future__ import annotations

import io

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

import mesh

Image = np.ndarray
"""Height × width × 3, float32 between 0 and 1."""


class Decoder:
    def decode(self, data: bytes) -> Image:
        image = np.load(io.BytesIO(data), allow_pickle=False)
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"This is not an image of height × width × 3: {image.shape}.")
        decoded: Image = image.astype(np.float32) / 255
        return decoded


class Shrinker:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def shrink(self, image: Image) -> Image:
        """The mean of each square of pixels."""
        height, width = (side // self.factor for side in image.shape[:2])
        squares = image[: height * self.factor, : width * self.factor]
        small: Image = squares.reshape(height, self.factor, width, self.factor, 3).mean(axis=(1, 3))
        return small


class Contrast:
    def stretch(self, image: Image) -> Image:
        darkest, brightest = image.min(), image.max()
        stretched: Image = (image - darkest) / max(brightest - darkest, 1e-6)
        return stretched


class Thumbnails:
    def __init__(
        self, decoder: mesh.DeploymentHandle, shrinker: mesh.DeploymentHandle, contrast: mesh.DeploymentHandle
    ) -> None:
        self.decoder = decoder
        self.shrinker = shrinker
        self.contrast = contrast

    async def __call__(self, request: Request) -> Response:
        decoded = self.decoder.decode.remote(await request.body())
        small = self.shrinker.shrink.remote(decoded)
        try:
            image = await self.contrast.stretch.remote(small)
        except (ValueError, EOFError) as error:  # numpy cannot read it, or it ends too early
            return Response(str(error), status_code=400)
        file = io.BytesIO()
        np.save(file, (image * 255).round().astype(np.uint8))
        return Response(file.getvalue(), media_type="application/octet-stream")


decoder = mesh.deployment(Decoder)
shrinker = mesh.deployment(Shrinker, num_replicas=2)
contrast = mesh.deployment(Contrast)
thumbnails = mesh.deployment(Thumbnails)
app = thumbnails.bind(decoder.bind(), shrinker.bind(4), contrast.bind())
