"""The fixtures of PyTorch's own file format: files of `torch.save`, and the same tensors as f32 in safetensors."""

import json
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

MOST_BYTES = 60_000


def write(folder: Path) -> None:
    """Writes each case as `<case>.bin` and `<case>.safetensors`, and the sharded one as a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    random = torch.Generator().manual_seed(5)

    def values(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    for name, (tensors, options) in _cases(values).items():
        _save(folder, name, tensors, options)

    shards = [{"a.weight": values(3, 4), "a.bias": values(3)}, {"b.weight": values(2, 3).half()}]
    place = folder / "sharded"
    place.mkdir(exist_ok=True)
    index = {}
    for number, shard in enumerate(shards, 1):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save(shard, place / file)
        index |= dict.fromkeys(shard, file)
    text = json.dumps({"metadata": {"total_size": 72}, "weight_map": index}, indent=1)
    (place / "pytorch_model.bin.index.json").write_text(text + "\n", encoding="utf-8")
    _expect(folder / "sharded.safetensors", shards[0] | shards[1])

    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{written} bytes in {folder}")
    assert written <= MOST_BYTES, "too large to commit"


def _cases(values) -> dict[str, tuple[dict, dict]]:
    """Tensors of each case by name, and the options of `torch.save`."""
    model = nn.Sequential(OrderedDict(first=nn.Linear(4, 3), norm=nn.LayerNorm(3)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(values(*parameter.shape))
    tied = values(5, 3)
    long = values(40)
    views = {
        "transposed": values(3, 5).t(),
        "permuted": values(2, 3, 4).permute(2, 0, 1),
        "row": long[8:12],
        "columns": values(4, 6)[:, 1:5:2],
        "overlapping": long.as_strided((4, 3), (2, 1), 5),
        "scalar": values(1)[0],
        "empty": values(0, 3),
        "one": values(1, 1, 4)[:, :, 2:3],
    }
    numbers = {
        "f32": values(2, 3),
        "f16": values(2, 3).half(),
        "bf16": values(2, 3).bfloat16(),
        "f64": values(2, 3).double(),
        "f64_columns": values(2, 3).double().t(),
        "bf16_columns": values(2, 3).bfloat16().t(),
    }
    integers = {"i64": torch.arange(4), "i32": torch.arange(3).int(), "bool": torch.tensor([True, False])}
    integers |= {"u8": torch.tensor([1, 2]).byte(), "i8": torch.tensor([-1]).char(), "i16": torch.tensor([7]).short()}
    legacy = {"_use_new_zipfile_serialization": False}
    return {
        "module": (model.state_dict(), {}),
        "parameters": ({"a": nn.Parameter(values(2, 2)), "b": nn.Parameter(values(3), requires_grad=False)}, {}),
        "tied": ({"embeddings": tied, "decoder": tied, "bias": values(5)}, {}),
        "views": (views, {}),
        "numbers": (numbers | integers, {}),
        "protocol4": (model.state_dict(), {"pickle_protocol": 4}),
        "legacy": (model.state_dict() | {"tied": tied, "again": tied}, legacy),
        "legacy_views": (views, legacy),
        "legacy_numbers": (numbers | integers, legacy),
        "many": ({f"layer.{index}.weight": values(2) for index in range(60)}, legacy),
    }


def _save(folder: Path, name: str, tensors: dict, options: dict) -> None:
    torch.save(tensors, folder / f"{name}.bin", **options)
    _expect(folder / f"{name}.safetensors", tensors)


def _expect(file: Path, tensors: dict) -> None:
    """The floating point tensors as f32, with nothing shared."""
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    save_file({name: tensor.detach().float().contiguous().clone() for name, tensor in floats.items()}, file)
    file.chmod(0o644)
