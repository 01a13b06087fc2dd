"""A peer of `serving.py`: the pipeline of `serving_pipeline.py` in LitServe, a worker a core.

    python benchmarks/serving_litserve.py FOLDER PORT

It takes forms and JSON, no raw bodies.
"""

import os
import sys
from typing import Any

import litserve
from fastapi import Request
from serving_pipeline import answer, pipeline_of


class Classifier(litserve.LitAPI):
    """One picture in, one answer out."""

    def setup(self, device: str) -> None:
        self.classify = pipeline_of(sys.argv[1])

    def decode_request(self, request: Request) -> bytes:
        return request["picture"].file.read()  # it hands over the form, whatever its annotation

    def predict(self, data: bytes) -> list[dict[str, Any]]:
        return answer(self.classify, data)

    def encode_response(self, output: list[dict[str, Any]]) -> dict[str, Any]:
        return {"predictions": output}


if __name__ == "__main__":
    server = litserve.LitServer(
        Classifier(api_path="/v1/predict"), accelerator="cpu", workers_per_device=os.cpu_count()
    )
    server.run(port=int(sys.argv[2]), log_level="warning", generate_client_file=False)
