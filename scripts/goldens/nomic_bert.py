"""NomicBert, of which the pinned transformers has no class: a post-norm encoder with rotary positions and a gated
feed-forward block, as in Nussbaum et al. 2024 (arXiv:2402.01613), with the names of the published checkpoints."""

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional

DEFAULTS = {
    "model_type": "nomic_bert",
    "vocab_size": 30528,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_inner": None,
    "activation_function": "swiglu",
    "layer_norm_epsilon": 1e-5,
    "n_positions": 2048,
    "type_vocab_size": 2,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "prenorm": False,
    "causal": False,
    "tie_word_embeddings": True,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
}


def configuration(fields: dict) -> SimpleNamespace:
    """The fields of a config.json over the defaults."""
    return SimpleNamespace(**DEFAULTS | fields)


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads, self.base, self.interleaved = config.n_head, config.rotary_emb_base, config.rotary_emb_interleaved
        self.rotated = int(config.n_embd // config.n_head * config.rotary_emb_fraction)
        self.Wqkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.qkv_proj_bias)
        self.out_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.qkv_proj_bias)

    def forward(self, x, mask):
        batch, tokens, width = x.shape
        q, k, v = self.Wqkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = self.rotate(q), self.rotate(k)
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        scores = scores.masked_fill(~mask[:, None, None, :], torch.finfo(x.dtype).min)
        context = scores.softmax(-1) @ v
        return self.out_proj(context.transpose(1, 2).reshape(batch, tokens, width))

    def rotate(self, x):
        """Rotary embedding of the first `rotated` columns of each head."""
        turned, rest = x[..., : self.rotated], x[..., self.rotated :]
        frequencies = self.base ** -(torch.arange(0, self.rotated, 2, dtype=x.dtype) / self.rotated)
        angles = torch.outer(torch.arange(x.shape[-2], dtype=x.dtype), frequencies)
        sine, cosine = angles.sin(), angles.cos()
        if self.interleaved:
            left, right = turned[..., ::2], turned[..., 1::2]
        else:
            left, right = turned.chunk(2, dim=-1)
        pair = left * cosine - right * sine, right * cosine + left * sine
        turned = torch.stack(pair, dim=-1).flatten(-2) if self.interleaved else torch.cat(pair, dim=-1)
        return torch.cat([turned, rest], dim=-1)


class FeedForward(nn.Module):
    def __init__(self, config):
        super().__init__()
        inner = config.n_inner or 4 * config.n_embd
        self.activation = {"swiglu": functional.silu, "geglu": functional.gelu, "gelu": functional.gelu}[
            config.activation_function
        ]
        self.gated = config.activation_function.endswith("glu")
        if self.gated:
            self.fc11 = nn.Linear(config.n_embd, inner, bias=config.mlp_fc1_bias)
            self.fc12 = nn.Linear(config.n_embd, inner, bias=config.mlp_fc1_bias)
        else:
            self.fc1 = nn.Linear(config.n_embd, inner, bias=config.mlp_fc1_bias)
        self.fc2 = nn.Linear(inner, config.n_embd, bias=config.mlp_fc2_bias)

    def forward(self, x):
        inner = self.fc11(x) * self.activation(self.fc12(x)) if self.gated else self.activation(self.fc1(x))
        return self.fc2(inner)


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attn, self.mlp = Attention(config), FeedForward(config)
        self.norm1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.norm2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)

    def forward(self, x, mask):
        x = self.norm1(x + self.attn(x, mask))
        return self.norm2(x + self.mlp(x))


class Embeddings(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.n_embd)
        if config.type_vocab_size:
            self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.n_embd)

    def forward(self, ids, types):
        x = self.word_embeddings(ids)
        return x + self.token_type_embeddings(types) if hasattr(self, "token_type_embeddings") else x


class Encoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layer))


class NomicBertModel(nn.Module):
    """`forward` yields the last hidden state [batch, tokens, width]."""

    base_model_prefix = "bert"

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embeddings, self.encoder = Embeddings(config), Encoder(config)
        self.emb_ln = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        x = self.emb_ln(self.embeddings(input_ids, types))
        for layer in self.encoder.layers:
            x = layer(x, mask.bool())
        return SimpleNamespace(last_hidden_state=x)
