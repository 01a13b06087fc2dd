"""Peers of `serving.py`, as their documentation has them: one picture in, one answer out.

    python benchmarks/serving_peers.py pipeline FOLDER PORT
    python benchmarks/serving_peers.py litserve FOLDER PORT

FOLDER is the same model for transformers, as `vitreous export --to transformers` writes it. The
first is FastAPI around transformers' pipeline for image classification in a route without `async`,
which FastAPI runs in its threads; the second the same pipeline in LitServe, with a worker for each
core.
"""

import io
import sys
from typing import Any

import torchvision_operators  # noqa: F401


def pipeline_of(folder: str) -> Any:
    from transformers import pipeline

    return pipeline("image-classification", model=folder, device="cpu")


def answer(classify: Any, data: bytes) -> list[dict[str, Any]]:
    from PIL import Image

    return classify(Image.open(io.BytesIO(data)).convert("RGB"), top_k=1000)


def serve_pipeline(folder: str, port: int) -> None:
    import torch
    import uvicorn
    from fastapi import Body, FastAPI

    torch.set_num_threads(1)
    classify, app = pipeline_of(folder), FastAPI()

    @app.post("/v1/predict")
    def predict(data: bytes = Body(media_type="image/jpeg")) -> list[dict[str, Any]]:
        return answer(classify, data)

    uvicorn.run(app, port=port, log_level="warning")


def serve_litserve(folder: str, port: int) -> None:
    import os

    import litserve
    from fastapi import Request

    class Classifier(litserve.LitAPI):
        def setup(self, device: str) -> None:
            import torch

            torch.set_num_threads(1)
            self.classify = pipeline_of(folder)

        async def decode_request(self, request: Request) -> bytes:
            return await request.body()

        def predict(self, data: bytes) -> list[dict[str, Any]]:
            return answer(self.classify, data)

        def encode_response(self, output: list[dict[str, Any]]) -> dict[str, Any]:
            return {"predictions": output}

    server = litserve.LitServer(
        Classifier(api_path="/v1/predict"), accelerator="cpu", workers_per_device=os.cpu_count()
    )
    server.run(port=port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    {"pipeline": serve_pipeline, "litserve": serve_litserve}[sys.argv[1]](
        sys.argv[2], int(sys.argv[3])
    )
