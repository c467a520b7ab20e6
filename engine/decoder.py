"""AudioCraft's language model over a static cache: one forward pass for many slots.

The arithmetic is `StreamingTransformer`'s (`audiocraft/modules/transformer.py`, 1.3.0): pre-norm
layers without biases, sinusoidal positions, exact GELU, residuals in the order self, cross,
feed-forward. What differs is when it is done: keys and values of the text are computed once a
request, those of the past are written in place, and rows of the null condition skip
cross-attention, whose result is exactly zero for them.

Nothing here mixes rows: attention runs slot by slot over that slot's own length.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from audiocraft.models.lm import LMModel
from audiocraft.modules.codebooks_patterns import DelayedPatternProvider
from audiocraft.modules.transformer import StreamingTransformerLayer, create_sin_embedding
from torch import Tensor
from torch.nn import functional

from engine.errors import CheckpointMismatch
from engine.precision import Linear, make_linear


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive new positions of one slot, for each of its rows."""

    slot: int
    rows: int
    """1, or 2 under guidance: the conditional row, then the null row."""
    start: int
    """The position of the first, from 0."""
    count: int

    @property
    def tokens(self) -> int:
        """Rows times positions."""
        return self.rows * self.count


class Layer:
    """One layer's weights, fused where AudioCraft's are."""

    def __init__(self, layer: StreamingTransformerLayer, precision: str) -> None:
        self.norm_self = layer.norm1
        self.norm_cross = layer.norm_cross if layer.cross_attention is not None else None
        self.norm_feed = layer.norm2
        width, heads = layer.self_attn.embed_dim, layer.self_attn.num_heads
        # Attention's scale is folded into the queries' weights.
        scale = (width // heads) ** -0.5
        query, key_value = layer.self_attn.in_proj_weight.split([width, 2 * width])
        self.qkv = make_linear(torch.cat([scale * query, key_value]), precision)
        self.out = make_linear(layer.self_attn.out_proj.weight, precision)
        if layer.cross_attention is not None:
            query, key_value = layer.cross_attention.in_proj_weight.split([width, 2 * width])
            self.cross_query: Linear = make_linear(scale * query, precision)
            self.cross_key_value: Linear = make_linear(key_value, precision)
            self.cross_out: Linear = make_linear(layer.cross_attention.out_proj.weight, precision)
        self.feed_in = make_linear(layer.linear1.weight, precision)
        self.feed_out = make_linear(layer.linear2.weight, precision)


def check_supported(lm: LMModel) -> None:
    """Raise CheckpointMismatch where the model is not of the family whose arithmetic this is."""
    transformer, first = lm.transformer, lm.transformer.layers[0]
    attention, pattern = first.self_attn, lm.pattern_provider
    for what, holds in (
        ("sinusoidal positions", transformer.positional_embedding == "sin"),
        ("norm_first", lm.out_norm is not None and first.norm_first),
        ("plain delays", isinstance(pattern, DelayedPatternProvider)),
        ("no flattened columns", not getattr(pattern, "flatten_first", 0)),
        ("no empty initial columns", not getattr(pattern, "empty_initial", 0)),
        ("layer norms", isinstance(first.norm1, torch.nn.LayerNorm)),
        ("exact GELU", first.activation is functional.gelu),
        ("packed projections (custom or memory_efficient)", attention.custom),
        ("no attention biases", getattr(attention, "in_proj_bias", None) is None),
        ("no feed-forward biases", first.linear1.bias is None),
        ("no head biases", lm.linears[0].bias is None),
        ("no query or key norm", not attention.qk_layer_norm),
        ("no repeated keys", attention.kv_repeat == 1),
        ("unlimited past_context", attention.past_context is None),
        ("no layer scale", isinstance(first.layer_scale_1, torch.nn.Identity)),
        ("no conditions that are summed", not lm.fuser.fuse2cond["sum"]),
        ("no conditions that are interpolated", not lm.fuser.fuse2cond["input_interpolate"]),
    ):
        if not holds:
            raise CheckpointMismatch(f"this engine needs a model with {what}")


def slot_bytes(lm: LMModel, positions: int, text_tokens: int) -> int:
    """Return the bytes of cache that one slot takes: keys and values of two rows and a text."""
    per_position: int = 2 * len(lm.transformer.layers) * lm.dim * 4
    return per_position * (2 * positions + text_tokens)


class Decoder:
    """The model's weights and every slot's cache, allocated once.

    `past` is [layer, 2, slot, row, head, position, head_dim], keys then values; `text` is
    [layer, 2, slot, head, text token, head_dim], of the conditional row. Both are float32 in every
    precision: on the CPU, products with a bfloat16 cache run at a fifth of its speed.
    """

    def __init__(
        self, lm: LMModel, *, slots: int, positions: int, text_tokens: int, precision: str
    ) -> None:
        self.device = next(lm.parameters()).device
        self.heads = lm.transformer.layers[0].self_attn.num_heads
        self.width, self.codebooks, self.cardinality = lm.dim, lm.num_codebooks, lm.card
        self.special = lm.special_token_id
        self.embeddings = [table.weight.float() for table in lm.emb]
        self.layers = [Layer(layer, precision) for layer in lm.transformer.layers]
        self.out_norm = lm.out_norm
        self.logit_heads = make_linear(torch.cat([h.weight for h in lm.linears]), precision)
        steps = torch.arange(positions, device=self.device).view(1, -1, 1)
        period, scale = lm.transformer.max_period, lm.transformer.positional_scale
        self.positions = scale * create_sin_embedding(steps, self.width, max_period=period)[0]
        depth, head_dim = len(self.layers), self.width // self.heads
        past = (depth, 2, slots, 2, self.heads, positions, head_dim)
        text = (depth, 2, slots, self.heads, text_tokens, head_dim)
        self.past, self.text = (torch.zeros(shape, device=self.device) for shape in (past, text))
        # Each slot's keys and values of each layer, as batches of heads: views, made once.
        self._past_views = [list(zip(*part, strict=True)) for part in self.past.flatten(3, 4)]
        self._text_views = [list(zip(*part, strict=True)) for part in self.text]
        self.text_lengths = [0] * slots

    def set_text(self, slot: int, text: Tensor | None) -> None:
        """Compute the text's keys and values for one slot.

        `text` is the conditional row's cross-attention source [tokens, width], or None.
        """
        self.text_lengths[slot] = 0 if text is None else len(text)
        if text is None:
            return
        for depth, layer in enumerate(self.layers):
            projected = layer.cross_key_value(text).view(len(text), 2, self.heads, -1)
            self.text[depth, :, slot, :, : len(text)] = projected.permute(1, 2, 0, 3)

    def embed(self, columns: Tensor) -> Tensor:
        """Embed columns of codes [n, codebooks] as [n, width]."""
        tables = zip(self.embeddings, columns.unbind(1), strict=True)
        first, *others = [functional.embedding(column, table) for table, column in tables]
        for other in others:
            first = first + other
        return first

    def forward(self, inputs: Tensor, segments: Sequence[Segment]) -> Tensor:
        """Run new positions through the model and keep their keys and values.

        `inputs` are embeddings without positions [tokens, width]: for each segment its rows, for
        each row its positions. Returns the last position's logits for each row,
        [rows, codebooks, cardinality].
        """
        assert len(inputs) == sum(segment.tokens for segment in segments)
        place = Place(self, segments)
        x = inputs + self.positions[place.position]
        for depth, layer in enumerate(self.layers):
            x = x + layer.out(self._attend(depth, layer.qkv(layer.norm_self(x)), place))
            if place.with_text is not None:
                assert layer.norm_cross is not None
                rows = layer.norm_cross(x[place.with_text])
                added = layer.cross_out(self._attend_text(depth, layer.cross_query(rows), place))
                x.index_add_(0, place.with_text, added)
            hidden = functional.gelu(layer.feed_in(layer.norm_feed(x)))
            x = x + layer.feed_out(hidden)
        logits = self.logit_heads(self.out_norm(x[place.last]))
        return logits.view(len(logits), self.codebooks, self.cardinality)

    def _attend(self, depth: int, projected: Tensor, place: "Place") -> Tensor:
        """Attend to each slot's own past, after its new keys and values are written to it."""
        query, *new = projected.view(len(projected), 3, self.heads, -1).unbind(1)
        where = (place.kind, place.slot, place.row, slice(None), place.position)
        self.past[depth][where] = torch.stack(new)
        result = torch.empty_like(query, memory_format=torch.contiguous_format)
        for segment, (begin, end) in zip(place.segments, place.spans, strict=True):
            keys, values = self._past_views[depth][segment.slot]
            attend(
                query[begin:end].view(segment.rows, segment.count, self.heads, -1),
                keys[: segment.rows * self.heads, : segment.start + segment.count],
                values[: segment.rows * self.heads, : segment.start + segment.count],
                self._hidden(segment),
                out=result[begin:end],
            )
        return result.flatten(1)

    def _hidden(self, segment: Segment) -> Tensor | None:
        """Return which positions each new one may not see, or None where it may see all."""
        if segment.count == 1:
            return None
        past = segment.start + segment.count
        seen = torch.ones(segment.count, past, dtype=torch.bool, device=self.device)
        return seen.tril(segment.start).logical_not()

    def _attend_text(self, depth: int, query: Tensor, place: "Place") -> Tensor:
        """Let the conditional rows' queries [tokens, width] attend to their slots' texts."""
        query = query.view(len(query), self.heads, -1)
        result = torch.empty_like(query, memory_format=torch.contiguous_format)
        begin = 0
        for segment in place.segments:
            length = self.text_lengths[segment.slot]
            if length:
                end = begin + segment.count
                keys, values = self._text_views[depth][segment.slot]
                rows = query[begin:end]
                attend(rows[None], keys[:, :length], values[:, :length], out=result[begin:end])
                begin = end
        return result.flatten(1)


def attend(
    query: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None = None, *, out: Tensor
) -> None:
    """Attend with scaled queries [rows, new, heads, head_dim] to the past, and write to `out`.

    Keys and values are [rows x heads, past, head_dim]; `hidden` [new, past] marks what a query may
    not see; `out` is [rows x new, heads, head_dim]. The products read the cache where it lies:
    torch's fused attention for the CPU copies it first where there is one new position.
    """
    rows, new, heads, head_dim = query.shape
    query = query.transpose(1, 2).reshape(rows * heads, new, head_dim)
    scores = torch.bmm(query, keys.transpose(1, 2))
    if hidden is not None:
        scores.masked_fill_(hidden, -torch.inf)
    mixed = torch.bmm(scores.softmax(-1), values).view(rows, heads, new, head_dim)
    out.view(rows, new, heads, head_dim).copy_(mixed.transpose(1, 2))


class Place:
    """Where each token of a batch stands: its slot, row and position, as index tensors."""

    def __init__(self, decoder: Decoder, segments: Sequence[Segment]) -> None:
        self.segments = segments
        slot: list[int] = []
        row: list[int] = []
        position: list[int] = []
        last: list[int] = []
        with_text: list[int] = []
        self.spans: list[tuple[int, int]] = []
        for segment in segments:
            begin = len(slot)
            for number in range(segment.rows):
                slot += [segment.slot] * segment.count
                row += [number] * segment.count
                position += range(segment.start, segment.start + segment.count)
                last.append(len(slot) - 1)
            if decoder.text_lengths[segment.slot]:
                with_text += range(begin, begin + segment.count)
            self.spans.append((begin, len(slot)))

        def index(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.long, device=decoder.device)

        self.kind = index([0, 1])[:, None]
        self.slot, self.row, self.position = index(slot), index(row), index(position)
        self.last = index(last)
        self.with_text = index(with_text) if with_text else None
