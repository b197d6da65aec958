"""What people deploy first: a pipeline of transformers behind FastAPI, one worker, nothing tuned.

    deployment.py TASK MODEL PORT

POST / takes {"inputs": TEXT, "parameters": {...}}. The pipeline runs in an `async` handler, as in the tutorials, so
requests are answered one after the other; PyTorch takes all cores for each. Weights that are stored in 16 bits are
computed in 32, so that no row differs in precision only.
"""

import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline


class Body(BaseModel):
    """A request."""

    inputs: str
    parameters: dict = {}


def embedding(pipe, text: str) -> list[float]:
    """The vector of a text as the model's card has it: the mean of its tokens, of length 1."""
    mean = pipe(text, return_tensors=True)[0].mean(dim=0)
    return (mean / mean.norm()).tolist()


def plain(answer):
    """The same with Python's own numbers, without which FastAPI has no JSON for it."""
    if isinstance(answer, list):
        return [plain(part) for part in answer]
    if isinstance(answer, dict):
        return {name: plain(part) for name, part in answer.items()}
    return answer.item() if hasattr(answer, "item") else answer


def application(task: str, model: str) -> FastAPI:
    """The server of one model."""
    pipe = pipeline(task, model=model, dtype=torch.float32)
    app = FastAPI()

    @app.get("/health")
    async def health() -> dict:
        return {}

    @app.post("/")
    async def answer(body: Body):
        if task == "feature-extraction":
            return embedding(pipe, body.inputs)
        return plain(pipe(body.inputs, **body.parameters))

    return app


if __name__ == "__main__":
    uvicorn.run(application(sys.argv[1], sys.argv[2]), port=int(sys.argv[3]), log_level="warning")
