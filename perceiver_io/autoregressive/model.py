"""Perceiver AR: the last of very many tokens become latents, and each predicts the token after it (arXiv 2202.07765).

tokens [B, N] ─ embedding, positions ─ inputs [B, N, C] ─ causal cross-attend ─ causal self-attends ─ logits [B, z, V]
                                         │ the last z                  ▲
                                         └─ latent query ─ latents ────┘

Source: google-research/perceiver-ar, `perceiver_ar_model.py`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from perceiver_io.attention import Cache as AttentionCache
from perceiver_io.attention import Rotations as AttentionRotations
from perceiver_io.autoregressive import blocks, masks
from perceiver_io.autoregressive.cache import Cache
from perceiver_io.autoregressive.config import PerceiverARConfig
from perceiver_io.autoregressive.generation import Generation, Prompts, latent_policy
from perceiver_io.autoregressive.masks import Keep
from perceiver_io.autoregressive.queries import LearnedQuery, initialise
from perceiver_io.autoregressive.rotary import Rotations
from perceiver_io.autoregressive.sampling import Allowed, Sampler
from perceiver_io.checks import as_mask, check_integers
from perceiver_io.preprocessors import ByteEmbedding


class PerceiverAR(nn.Module):
    """Maps tokens to logits of what comes next, at a cost linear in their number.

    DEVIATION: a latent that may attend to nothing, as dropout or padding leave some, attends to zeros
    (`attention.attend`); in the reference it averages all inputs, later ones included. Guarded by
    tests/autoregressive/test_model.py.
    """

    def __init__(self, config: PerceiverARConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.embedding = ByteEmbedding(config.vocab_size, config.embed_channels)
        sizes = config.position_sizes or ()
        self.position_tables = nn.ModuleList(blocks.position_table(config, size) for size in sizes)
        self.latent_query = blocks.latent_query(config)
        self.position_latents = None
        if config.latents_per_position > 1:
            self.position_latents = LearnedQuery(config.latents_per_position, config.num_latent_channels)
        self.cross_attend = blocks.cross_attend(config) if config.initial_cross_attend else None
        self.self_attends = nn.ModuleList(blocks.self_attend(config) for _ in range(config.num_self_attends))
        further = sorted(set(config.additional_cross_attends or ()))
        self.further_cross_attends = nn.ModuleDict({str(index): blocks.cross_attend(config) for index in further})
        self.output_norm = nn.LayerNorm(config.num_latent_channels) if config.output_norm else None
        self.output = None
        if not config.tied_output:
            self.output = nn.Linear(config.num_latent_channels, config.vocab_size, bias=config.output_bias)
            initialise(self.output, zeros=config.zero_init_output)
        elif config.output_bias:
            self.output_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.cross_rotary = self.self_rotary = None
        if config.rotary != "none":
            width = config.embed_channels if config.cross_attend_shape == "kv" else config.num_latent_channels
            heads, group = config.num_cross_attend_heads, config.rotary_head_group_size
            self.cross_rotary = blocks.rotary(config, heads, width, group)
            self.self_rotary = blocks.rotary(config, config.num_self_attend_heads, config.num_latent_channels, None)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the model's weights."""
        return self.embedding.weight.dtype

    def forward(
        self,
        tokens: Int[Tensor, "batch inputs"],
        positions: Int[Tensor, "#batch inputs"] | Int[Tensor, "#batch inputs axes"] | None = None,
        num_latents: int | None = None,
        *,
        mask: Bool[Tensor, "batch inputs"] | Int[Tensor, "batch inputs"] | None = None,
        cache: Cache | None = None,
        keep: Keep | None = None,
    ) -> Float[Tensor, "batch latents vocab"]:
        """Maps tokens to logits: the last row predicts what comes next, the rows before it the last tokens.

        Sequences of a batch may differ in length, from 1 on: pad them on the right with `pad_token`, or on either side
        with a mask. Row j of z belongs to the valid token `length - z + j`; rows of shorter sequences, where that is
        negative, mean nothing.

        Args:
            tokens: ids in 0…vocab_size - 1.
            positions: of the tokens, in each axis; by default they count on from `first_position`.
            num_latents: rows of logits, or fewer where there are fewer tokens; by default as in training.
            mask: True where a token is valid, in one run per sequence; by default, up to the first `pad_token`.
            cache: an empty one is filled. In one that is not, tokens are those that have come since, all of them
                valid, and as many latents (or `num_latents`) are added.
            keep: which inputs and latents training attends to; by default it is drawn as the configuration says.

        Raises:
            ValueError: for ids out of range, too many tokens, positions of other axes, padding between tokens, or an
                impossible number of latents.
        """
        return self._logits(self.latents(tokens, positions, num_latents, mask=mask, cache=cache, keep=keep))

    def next_logits(
        self,
        tokens: Int[Tensor, "batch inputs"],
        positions: Int[Tensor, "#batch inputs"] | Int[Tensor, "#batch inputs axes"] | None = None,
        num_latents: int | None = None,
        *,
        mask: Bool[Tensor, "batch inputs"] | Int[Tensor, "batch inputs"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "batch vocab"]:
        """Maps tokens to the logits of what comes next, the last row that `forward` returns."""
        latents = self.latents(tokens, positions, num_latents, mask=mask, cache=cache)
        return self._logits(latents[:, latents.shape[1] - self.config.latents_per_position :])[:, 0]

    def latents(
        self,
        tokens: Int[Tensor, "batch inputs"],
        positions: Int[Tensor, "#batch inputs"] | Int[Tensor, "#batch inputs axes"] | None = None,
        num_latents: int | None = None,
        *,
        mask: Bool[Tensor, "batch inputs"] | Int[Tensor, "batch inputs"] | None = None,
        cache: Cache | None = None,
        keep: Keep | None = None,
    ) -> Float[Tensor, "batch latents channels"]:
        """Maps tokens to the latents that logits are computed from; arguments as in `forward`."""
        config = self.config
        check_integers("token ids", tokens, ("batch", "sequence"), config.vocab_size)
        tokens, positions, valid, order = self._aligned(tokens, positions, mask, cache)
        num_inputs = tokens.shape[1]
        latents_per_position = config.latents_per_position
        places = self._num_latents(num_latents, num_inputs, cache) // latents_per_position
        if self.training and keep is None:
            keep = self._draw_keep(tokens, places * latents_per_position)
        keep = Keep() if keep is None else keep
        kept_inputs = keep.inputs if keep.inputs is None or order is None else keep.inputs.gather(1, order)
        valid_latents = None if valid is None or config.leaks_padding else valid[:, num_inputs - places :]
        if cache is not None:
            cache.inputs.advance(num_inputs, valid)
            cache.latents.advance(places, valid_latents)
            cross_mask, self_mask = cache.inputs.mask(), cache.latents.mask()
        else:
            if valid_latents is not None:
                valid_latents = valid_latents.repeat_interleave(latents_per_position, dim=1)
            cross_mask = masks.cross_mask(valid, kept_inputs)
            self_mask = masks.self_mask(valid_latents, keep.latents)
        if latents_per_position > 1:
            order = masks.repeated_order(places, num_inputs, latents_per_position, tokens.device)
            among = masks.repeated_order(places, places, latents_per_position, tokens.device)
            cross_mask = _both(cross_mask, order)
            self_mask = _both(self_mask, among.repeat_interleave(latents_per_position, dim=2))
        inputs = self._embed(tokens, positions)
        cross_rotations, self_rotations = self._rotations(positions[..., 0], places)
        latents: Tensor = self.latent_query(inputs[:, num_inputs - places :])
        if self.position_latents is not None:
            latents = latents.repeat_interleave(latents_per_position, dim=1)
            latents = latents + self.position_latents.embeddings.repeat(places, 1)
        latents = self.latent_query.finish(latents)
        return self._attend(latents, inputs, (cross_mask, self_mask), (cross_rotations, self_rotations), cache)

    def new_cache(self, max_inputs: int | None = None, max_latents: int | None = None) -> Cache:
        """Makes an empty cache; by default of as many inputs and latents as in training.

        Raises:
            ValueError: for a model in which nothing computed for a token holds when the next one has come.
        """
        config = self.config
        if not config.can_cache:
            raise ValueError(
                "this model cannot be cached: its latents or embedded positions change when a token is added "
                "(latents_per_position above 1, latent_query 'learned', or position_tables with positions_from_end); "
                "generate with cache=False"
            )
        return Cache(
            config.initial_cross_attend + len(self.further_cross_attends),
            config.num_self_attends,
            config.max_context_length if max_inputs is None else max_inputs,
            config.num_latents if max_latents is None else max_latents,
        )

    def generate(
        self,
        prompts: Prompts,
        *,
        max_new_tokens: int = 256,
        temperature: float | int = 1.0,
        top_k: int | None = None,
        top_p: float | int | None = None,
        stop_tokens: Sequence[int] = (),
        seed: int | None = None,
        num_latents: int | str = "full",
        reset_latents: int | None = None,
        max_latents: int | None = None,
        positions: Int[Tensor, "#batch total"] | Int[Tensor, "#batch total axes"] | None = None,
        allowed: Allowed | None = None,
        cache: bool | None = None,
        compile: bool = False,
    ) -> Generation:
        """Continues prompts: an iterator of new tokens [batch]. Padding is never drawn.

        Args:
            prompts: sequences of ids, of different lengths from 1 on; or one tensor [batch, tokens], padded on the
                right. Of a prompt that is longer than `max_context_length`, the last tokens are read.
            max_new_tokens: most steps.
            temperature: see `Sampler`; 0 takes the likeliest token.
            top_k: see `Sampler`.
            top_p: see `Sampler`.
            stop_tokens: ids that end a sequence. Generation ends when all sequences have.
            seed: of the draws; None for other ones each time.
            num_latents: at the start: a number; "full", as many as are cached (or as there are tokens), so that the
                first step is the model's own prediction; or "official", the reference's 1.
            reset_latents: after a reset; by default half of those that are cached. All of them is a full pass each
                step.
            max_latents: that are cached; by default as many as in training.
            positions: of prompts and new tokens, for models whose positions do not count on by themselves.
            allowed: which ids may come where; see `Sampler`.
            cache: whether to keep keys and values; by default where the model can. Without, each step is a full pass
                with `max_latents` latents.
            compile: whether steps with the cache are one program of `torch.compile` (on CUDA, one graph), made by the
                first of them; see `autoregressive.compiled`.

        Raises:
            ValueError: at once, for arguments that break these rules.
        """
        return Generation(
            self,
            prompts,
            max_new_tokens=max_new_tokens,
            sampler=Sampler(temperature=temperature, top_k=top_k, top_p=top_p, allowed=allowed),
            policy=latent_policy(self.config.num_latents, num_latents, reset_latents, max_latents),
            device=self.embedding.weight.device,
            stop_tokens=stop_tokens,
            seed=seed,
            positions=positions,
            cached=self.config.can_cache if cache is None else cache,
            compiled=compile,
        )

    def _aligned(
        self, tokens: Tensor, positions: Tensor | None, mask: Tensor | None, cache: Cache | None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Moves padding to the left and fills in positions.

        Returns:
            tokens; positions [batch or 1, inputs, axes]; where tokens are valid, None for everywhere; and the order
            that they were brought to, None for as they were.
        """
        config = self.config
        batch, length = tokens.shape
        started = cache is not None and cache.num_inputs > 0
        if not started and length > config.max_context_length:
            raise ValueError(
                f"there are {length} tokens, and max_context_length is {config.max_context_length}; give the last ones"
            )
        if positions is not None:
            positions = _check_positions(positions, tokens, config.num_axes)
        if started:
            assert cache is not None
            if positions is None:
                positions = self._count_on(cache.num_inputs, length, cache.padding, tokens.device)
            return tokens, positions, None, None
        if mask is None:
            valid = masks.valid_tokens(tokens, config.pad_token)
        else:
            valid = masks.checked_runs(as_mask("mask", mask, tokens.shape))
        order = padding = None
        if valid is not None:
            order = masks.right_aligned(valid)
            tokens, valid = tokens.gather(1, order), valid.gather(1, order)
            padding = length - valid.sum(dim=1, keepdim=True)
            if positions is not None:
                positions = positions.expand(batch, -1, -1).gather(1, order[..., None].expand(-1, -1, config.num_axes))
        if cache is not None:
            cache.padding = padding
        if positions is None:
            positions = self._count_on(0, length, padding, tokens.device, None if cache is not None else length)
        return tokens, positions, valid, order

    def _count_on(
        self, seen: int, more: int, padding: Tensor | None, device: torch.device, total: int | None = None
    ) -> Int[Tensor, "#batch more 1"]:
        """The positions of tokens that come after `seen` others, padding included; `total` is where they end, if known.

        Where only distances count, positions from the end are counted from another point: they are the same then.
        """
        config = self.config
        if config.num_axes > 1:
            raise ValueError(
                f"position_sizes {config.position_sizes} has {config.num_axes} axes, so that positions [batch, "
                f"tokens, {config.num_axes}] must be given"
            )
        places = torch.arange(seen, seen + more, device=device)[None]
        if config.positions_from_end:
            places = (0 if total is None else total - 1) - places
            if config.negative_positions_from_end:
                places = -places
        elif padding is not None:
            places = (places - padding).clamp(min=0)
        return (places if config.positions_from_end else places + config.first_position)[..., None]

    def _num_latents(self, wanted: int | None, num_inputs: int, cache: Cache | None) -> int:
        config = self.config
        most = num_inputs * config.latents_per_position
        if wanted is None:
            return most if cache is not None and cache.num_inputs > 0 else min(config.num_latents, most)
        if wanted < 1 or wanted % config.latents_per_position:
            raise ValueError(
                f"num_latents ({wanted}) must be at least 1 and a multiple of latents_per_position "
                f"({config.latents_per_position})"
            )
        if config.latent_query == "learned" and wanted > config.num_latents:
            raise ValueError(f"num_latents ({wanted}) must be at most the {config.num_latents} that were learned")
        return min(wanted, most)

    def _draw_keep(self, tokens: Tensor, num_latents: int) -> Keep:
        config = self.config
        return masks.draw_keep(
            tokens.shape[0],
            tokens.shape[1],
            num_latents,
            input_dropout_prob=config.input_dropout_prob,
            prefix_dropout_prob=config.prefix_dropout_prob,
            num_training_inputs=config.num_training_inputs,
            latent_dropout_prob=config.latent_dropout_prob,
            device=tokens.device,
        )

    def _embed(self, tokens: Tensor, positions: Tensor) -> Float[Tensor, "batch inputs channels"]:
        inputs: Tensor = self.embedding(tokens)
        for axis, table in enumerate(self.position_tables):
            inputs = inputs + table(positions[..., axis]).to(inputs.dtype)
        return inputs

    def _rotations(self, positions: Tensor, places: int) -> tuple[AttentionRotations | None, AttentionRotations | None]:
        if self.cross_rotary is None or self.self_rotary is None:
            return None, None
        of_latents = positions[:, positions.shape[1] - places :] + self.config.offset_queries
        among = self.self_rotary(of_latents)
        return Rotations(self.cross_rotary(of_latents), self.cross_rotary(positions)), Rotations(among, among)

    def _attend(
        self,
        latents: Tensor,
        inputs: Tensor,
        mask: tuple[Tensor | None, Tensor | None],
        rotations: tuple[AttentionRotations | None, AttentionRotations | None],
        cache: Cache | None,
    ) -> Float[Tensor, "batch latents channels"]:
        """Runs the layers; of masks and rotations, the first are the cross-attentions'."""
        of_inputs = iter([] if cache is None else cache.cross_attends)
        of_latents = iter([] if cache is None else cache.self_attends)
        num_rotary = self.config.num_rotary_self_attends
        if self.cross_attend is not None:
            latents = self._run(self.cross_attend, latents, inputs, mask[0], rotations[0], next(of_inputs, None))
        for index, self_attend in enumerate(self.self_attends):
            turned = rotations[1] if num_rotary is None or index < num_rotary else None
            latents = self._run(self_attend, latents, mask[1], turned, next(of_latents, None))
            if str(index) in self.further_cross_attends:
                block = self.further_cross_attends[str(index)]
                latents = self._run(block, latents, inputs, mask[0], rotations[0], next(of_inputs, None))
        return latents

    def _run(self, layer: nn.Module, *inputs: Tensor | AttentionRotations | AttentionCache | None) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)

    def _logits(self, latents: Tensor) -> Float[Tensor, "batch places vocab"]:
        if self.output_norm is not None:
            latents = self.output_norm(latents)
        if self.config.latents_per_position > 1:
            latents = latents.unflatten(1, (-1, self.config.latents_per_position)).mean(dim=2)
        return self._output(latents)

    def _output(self, latents: Tensor) -> Float[Tensor, "batch places vocab"]:
        if self.output is not None:
            return self.output(latents)
        return F.linear(latents, self.embedding.weight, self.output_bias if self.config.output_bias else None)


def _check_positions(positions: Tensor, tokens: Tensor, num_axes: int) -> Int[Tensor, "#batch inputs axes"]:
    if positions.ndim == 2 and num_axes == 1:
        positions = positions[..., None]
    batch, length = tokens.shape
    if positions.ndim != 3 or positions.shape[0] not in (1, batch) or positions.shape[1:] != (length, num_axes):
        raise ValueError(
            f"positions {tuple(positions.shape)} must be [batch, tokens, axes]: one or {batch} examples, {length} "
            f"tokens and {num_axes} axes"
        )
    return positions


def _both(mask: Tensor | None, order: Tensor) -> Tensor:
    return order if mask is None else mask & order
