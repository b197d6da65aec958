"""GPT-2 with keys and values as plain tensors, for the exporter: what `transformers` computes, without its classes."""

import torch
from torch.nn import functional


class Gpt2(torch.nn.Module):
    """Over the modules of a `GPT2LMHeadModel`: ids [1, new] and each layer's past keys and values [1, heads, past, dim]
    to the logits of the last token and the keys and values with the new ones."""

    def __init__(self, source):
        super().__init__()
        self.source = source
        self.heads = source.config.n_head
        self.head_dim = source.config.n_embd // self.heads

    def forward(self, ids, *past):
        new, before = ids.shape[1], past[0].shape[2]
        positions = torch.arange(before, before + new)
        body = self.source.transformer
        x = body.wte(ids) + body.wpe(positions)
        hidden = positions[:, None] < torch.arange(before + new)[None, :]
        mask = torch.zeros(hidden.shape).masked_fill(hidden, float("-inf"))
        present = []
        for block, keys, values in zip(body.h, past[::2], past[1::2], strict=True):
            q, k, v = self._projections(block.attn, block.ln_1(x))
            keys, values = torch.cat([keys, k], 2), torch.cat([values, v], 2)
            present += [keys, values]
            scores = q @ keys.transpose(2, 3) * self.head_dim**-0.5 + mask
            mixed = (functional.softmax(scores, -1) @ values).transpose(1, 2).reshape(1, new, -1)
            x = x + block.attn.c_proj(mixed)
            x = x + block.mlp(block.ln_2(x))
        return (self.source.lm_head(body.ln_f(x[:, -1:])), *present)

    def _projections(self, attention, x):
        parts = attention.c_attn(x).split(self.heads * self.head_dim, 2)
        return [part.reshape(1, -1, self.heads, self.head_dim).transpose(1, 2) for part in parts]
