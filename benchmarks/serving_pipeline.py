"""A peer of `serving.py`: FastAPI around transformers' pipeline for image classification.

    python benchmarks/serving_pipeline.py FOLDER PORT

FOLDER is the model for transformers, as `vitreous export --to transformers` writes it. The route is
one without `async`, as FastAPI's documentation has it, which runs in threads.
"""

import io
import sys
from typing import Any

import torch
from torchvision_operators import name_operators


def pipeline_of(folder: str) -> Any:
    """A pipeline that computes on one thread."""
    name_operators()
    from transformers import pipeline

    torch.set_num_threads(1)
    return pipeline("image-classification", model=folder, device="cpu")


def answer(classify: Any, data: bytes) -> list[dict[str, Any]]:
    """All classes of one picture."""
    from PIL import Image

    return classify(Image.open(io.BytesIO(data)).convert("RGB"), top_k=1000)


def main() -> None:
    import uvicorn
    from fastapi import Body, FastAPI

    classify, app = pipeline_of(sys.argv[1]), FastAPI()

    @app.post("/v1/predict")
    def predict(data: bytes = Body(media_type="image/jpeg")) -> list[dict[str, Any]]:
        return answer(classify, data)

    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")


if __name__ == "__main__":
    main()
