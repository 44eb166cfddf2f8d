"""Hyper-parameters of SensorLLM, and what must hold between its parts."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Literal

from tsmjax.errors import InputError
from tsmjax.models import chronos_t5, llama
from tsmjax.models.chronos_t5 import Tokenizer

CAPTURE24 = (  # in the order of `tsmjax.prepare.capture24`
    *("sleep", "sitting", "standing", "walking", "bicycling", "vehicle", "household-chores"),
    *("manual-work", "sports", "mixed-activity"),
)


@dataclasses.dataclass(frozen=True)
class Compat:
    """Behaviour of the reference that is off here.

    Attributes:
      last_channel_grad_only: only the last channel, and its markers, train the projection and the
        markers, as in the reference when the classifier is trained without stage 1.
    """

    last_channel_grad_only: bool = False


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyper-parameters; the defaults are Llama 3.2 1B with chronos-t5-large on Capture-24.

    Attributes:
      llm: the language model.
      encoder: the encoder of channels.
      channels: names of the channels that have markers, in the order of the data.
      window: longest series in readings; at most the encoder's context.
      labels: names of the activities by id.
      model_type: "classification" has a linear head on the last token; "causal_lm" writes the
        name of the activity.
      proj_hidden: widths of the hidden layers of the projection; () for a single linear map.
      proj_patch: neighbouring states that the projection joins into one vector: 4 make prompts
        nearly a quarter as long.
      statistics: tell the language model in numbers what standardisation takes from a channel, and
        the powers of its frequencies (`tsmjax.wearables.summaries.told`): a perceptron adds them to
        its start marker. Stage 1 tells none.
      compat: behaviour of the reference.
    """

    llm: llama.Config = dataclasses.field(default_factory=llama.Config)
    encoder: chronos_t5.Config = dataclasses.field(
        default_factory=lambda: chronos_t5.Config(
            tokenizer=Tokenizer(kind="StanNormalizeUniformBins")
        )
    )
    channels: tuple[str, ...] = ("x_acc", "y_acc", "z_acc")
    window: int = 303
    labels: tuple[str, ...] = CAPTURE24
    model_type: Literal["classification", "causal_lm"] = "classification"
    proj_hidden: tuple[int, ...] = (2048,)
    proj_patch: int = 1
    statistics: bool = False
    compat: Compat = Compat()

    def __post_init__(self):
        if self.encoder.decoder:
            raise InputError("model.encoder.decoder is True, but SensorLLM has no use for it.")
        longest = self.encoder.tokenizer.context_length
        if not 1 <= self.window <= longest:
            raise InputError(
                f"model.window is {self.window} readings, but the encoder takes at most {longest} "
                "(model.encoder.tokenizer.context_length) and at least 1: use shorter windows, or "
                "a larger downsample factor."
            )
        for name in ("channels", "labels"):
            names = getattr(self, name)
            if not names or len(set(names)) < len(names):
                raise InputError(
                    f"model.{name} is {list(names)}, but must hold one or more different names."
                )
        if any(width < 1 for width in self.proj_hidden):
            raise InputError(
                f"model.proj_hidden is {list(self.proj_hidden)}, but widths are positive."
            )
        if self.proj_patch < 1:
            raise InputError(f"model.proj_patch is {self.proj_patch}, but must be at least 1.")

    @property
    def tokens_per_channel(self) -> int:
        """States of the encoder for each channel: the readings, and the end token."""
        return self.window + self.encoder.tokenizer.use_eos_token

    def vectors(self, readings: int) -> int:
        """Vectors that the readings of a channel, and the end token, become in a prompt."""
        return -(-(readings + self.encoder.tokenizer.use_eos_token) // self.proj_patch)

    @property
    def proj_widths(self) -> tuple[int, ...]:
        """Widths of the projection, from its input on."""
        return (self.proj_patch * self.encoder.d_model, *self.proj_hidden, self.llm.d_model)

    @property
    def new_tokens(self) -> int:
        """Tokens beside the language model's own: a start and an end marker for each channel."""
        return 2 * len(self.channels)

    def marker(self, channel: int, end: bool) -> int:
        """Token of the start or end marker of a channel."""
        return self.llm.vocab_size + 2 * channel + end


PRESETS = {
    "1b": {},
    "tiny": {
        "llm": llama.Config(**llama.PRESETS["tiny"]),
        "encoder": chronos_t5.Config(
            **{"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4},
            tokenizer=Tokenizer(kind="StanNormalizeUniformBins"),
        ),
        "proj_hidden": (128,),
    },
}

SHARDING = (
    (r"(projection|statistics)/layers/\d+/kernel$", ("fsdp", "tensor")),
    (r"head/kernel$", ("fsdp", None)),
    (r"new_tokens/embedding$", (None, "fsdp")),
    (r"(q|k|v|gate|up|wi)/kernel$", ("fsdp", "tensor")),
    (r"(o|down|wo)/kernel$", ("tensor", "fsdp")),
    (r"llm/embed/embedding$", ("tensor", "fsdp")),
    (r"llm/output/kernel$", ("fsdp", "tensor")),
    (r"relative_bias/embedding$", ()),
    (r"encoder/embed/embedding$", (None, "fsdp")),
    (r"(bias|scale)$", ()),
)

LORA = ((r"llm/blocks/.*attention/[qkvo]$", True),)


def flops(config: Config, rows: int, length: int, states: int, *, encode: bool) -> float:
    """Matmul FLOPs of one forward pass, without those of logits.

    Args:
      config: the model.
      rows: windows.
      length: tokens of a prompt.
      states: of those, tokens whose last states are read.
      encode: whether the encoder runs too.
    """
    vectors = rows * len(config.channels) * config.vectors(config.window)
    projection = sum(a * b for a, b in itertools.pairwise(config.proj_widths))
    series = rows * len(config.channels) if encode else 0
    return (
        llama.flops(config.llm, rows, length, states, logits=False)
        + 2.0 * vectors * projection
        + chronos_t5.flops(config.encoder, series, config.tokens_per_channel)
    )
