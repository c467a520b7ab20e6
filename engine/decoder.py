"""Runs AudioCraft's language model for many slots in one forward pass, over a cache in pages.

The arithmetic is `StreamingTransformer`'s (`audiocraft/modules/transformer.py`, 1.3.0): pre-norm
layers without biases, sinusoidal positions, exact GELU, residuals in the order self, cross,
feed-forward. Three things are done at another time: keys and values of the text are computed once
per request, those of the past are written in place, and rows of the null condition skip
cross-attention, whose result is exactly zero for them.

Rows never mix: each token attends to its own row, over its own length.
"""

import copy
import ctypes
from collections.abc import Sequence

import torch
from audiocraft.models.lm import LMModel
from audiocraft.modules.transformer import StreamingTransformerLayer, create_sin_embedding
from torch import Tensor
from torch.nn import functional

from engine.cache import Cache, Segment, TokenLayout
from engine.page_table import PAGE
from engine.precision import Linear, make_linear


class Layer:
    """The weights of one transformer layer, with query, key and value in one matrix."""

    def __init__(self, layer: StreamingTransformerLayer, precision: str) -> None:
        crosses = layer.cross_attention is not None
        self.norm_self, self.norm_feed = _to_float32(layer.norm1), _to_float32(layer.norm2)
        self.norm_cross = _to_float32(layer.norm_cross) if crosses else None
        width, heads = layer.self_attn.embed_dim, layer.self_attn.num_heads
        # Attention's scale is folded into the queries' weights.
        scale = (width // heads) ** -0.5
        query, key_value = layer.self_attn.in_proj_weight.split([width, 2 * width])
        self.qkv = make_linear(torch.cat([scale * query, key_value]), precision)
        self.out = make_linear(layer.self_attn.out_proj.weight, precision)
        if crosses:
            query, key_value = layer.cross_attention.in_proj_weight.split([width, 2 * width])
            self.cross_query: Linear = make_linear(scale * query, precision)
            self.cross_key_value: Linear = make_linear(key_value, precision)
            self.cross_out: Linear = make_linear(layer.cross_attention.out_proj.weight, precision)
        self.feed_in = make_linear(layer.linear1.weight, precision)
        self.feed_out = make_linear(layer.linear2.weight, precision)


def _to_float32(norm: torch.nn.LayerNorm) -> torch.nn.LayerNorm:
    """Return a float32 copy of a norm: between the matrix products all values are float32."""
    return copy.deepcopy(norm).float()


def _trim_memory() -> None:
    """Return freed memory to the system; glibc would keep the pages of the layers given up."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class Decoder:
    """The model's weights in a given precision, with a cache (`engine.cache`).

    With `take`, each layer of `lm` is deleted once it is converted, so that memory never holds
    both versions of the whole model.
    """

    def __init__(self, lm: LMModel, cache: Cache, precision: str, *, take: bool = False) -> None:
        self.cache, self.device = cache, cache.device
        assert precision != {"cpu": "float16", "cuda": "int8"}[self.device.type]
        self.width, self.codebooks, self.cardinality = lm.dim, lm.num_codebooks, lm.card
        self.special = lm.special_token_id
        self.embeddings = [table.weight.float() for table in lm.emb]
        self.layers: list[Layer] = []
        for depth, layer in enumerate(lm.transformer.layers):
            self.layers.append(Layer(layer, precision))
            if take:
                lm.transformer.layers[depth] = torch.nn.Identity()
        self.out_norm = _to_float32(lm.out_norm)
        self.logit_heads = make_linear(torch.cat([h.weight for h in lm.linears]), precision)
        if take:
            lm.linears = None
            _trim_memory()
        steps = torch.arange(cache.pages.table.shape[1] * PAGE, device=self.device).view(1, -1, 1)
        period, scale = lm.transformer.max_period, lm.transformer.positional_scale
        self.positions = scale * create_sin_embedding(steps, self.width, max_period=period)[0]

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Run one position in page 0, so that kernels are compiled before the first request."""
        text = torch.zeros(1, self.width, device=self.device) if self.layers[0].norm_cross else None
        self.set_text(0, text)
        self.forward(self.embeddings[0][:2], [Segment(slot=0, rows=2, start=0, count=1)])
        self.set_text(0, None)

    def set_text(self, slot: int, text: Tensor | None) -> None:
        """Compute and store the keys and values of a slot's text.

        `text` is the conditional row's cross-attention source [tokens, width], or None.
        """
        if text is not None:
            for depth, layer in enumerate(self.layers):
                self.cache.set_text(depth, slot, layer.cross_key_value(text))
        self.cache.text_lengths[slot] = 0 if text is None else len(text)

    def embed_columns(self, columns: Tensor) -> Tensor:
        """Embed columns of codes [n, codebooks] as [n, width]."""
        tables = zip(self.embeddings, columns.unbind(1), strict=True)
        first, *others = [functional.embedding(column, table) for table, column in tables]
        for other in others:
            first = first + other
        return first

    def forward(self, inputs: Tensor, segments: Sequence[Segment]) -> Tensor:
        """Run new positions through the model and store their keys and values.

        `inputs` are embeddings without positional encoding [tokens, width], ordered by segment,
        row and position. Returns the logits of each row's last position,
        [rows, codebooks, cardinality].
        """
        assert len(inputs) == sum(segment.tokens for segment in segments)
        return self.compute_logits(inputs, TokenLayout.from_segments(self.cache, segments))

    def compute_logits(self, inputs: Tensor, layout: TokenLayout) -> Tensor:
        """Compute the logits of `forward` for tokens whose rows and positions are in `layout`."""
        x = inputs + self.positions[layout.positions]
        for depth, layer in enumerate(self.layers):
            projected = layer.qkv(layer.norm_self(x))
            x = x + layer.out(self.cache.attend_past(depth, projected, layout))
            if layer.norm_cross is not None and len(layout.with_text):
                query = layer.cross_query(layer.norm_cross(x[layout.with_text]))
                added = layer.cross_out(self.cache.attend_text(depth, query, layout))
                x.index_add_(0, layout.with_text, added.float())
            hidden = functional.gelu(layer.feed_in(layer.norm_feed(x)))
            x = x + layer.feed_out(hidden)
        logits = self.logit_heads(self.out_norm(x[layout.last]))
        return logits.float().view(len(logits), self.codebooks, self.cardinality)
