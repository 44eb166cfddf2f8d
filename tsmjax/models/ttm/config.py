"""Hyper-parameters of TinyTimeMixer, and what must hold between them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Literal

from tsmjax.errors import InputError
from tsmjax.models.ttm.mixer import Mixing, level_factor

Mode = Literal["common_channel", "mix_channel"]


@dataclasses.dataclass(frozen=True)
class Compat:
    """Behaviour of granite-tsfm that is off here.

    Attributes:
      zero_padding: a context shorter than the model's is filled up with zeros that count as
        observed, instead of missing values.
      zero_missing: missing values enter the patches as zeros in the units of the data, instead of
        the mean of their channel.
      raw_exogenous: past values and values known ahead enter forecast mixing in the units of the
        data, while the forecast beside them is normalised; off, all are normalised.
    """

    zero_padding: bool = False
    zero_missing: bool = False
    raw_exogenous: bool = False


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """Tokens of the strongest frequencies of the context.

    Attributes:
      count: number of frequencies; 0 for no such tokens.
      one_token: one token of all frequencies instead of one each.
      embed: the vector of a frequency comes from a table instead of a perceptron.
      skip_mean: frequency zero does not count.
    """

    count: int = 0
    one_token: bool = False
    embed: bool = True
    skip_mean: bool = False


@dataclasses.dataclass(frozen=True)
class ForecastMixing:
    """How forecasts of several channels, and values known ahead, correct each other.

    Attributes:
      enabled: whether they do.
      context_length: steps before and after a step that its correction sees, k.
      gate: gate the neighbourhoods, and the mixer's blocks.
      layers: layers of a mixer over the channels of a neighbourhood; 0 for none.
      prepend_past: the first steps see the last k steps of the past; else zeros.
      past_offset: steps at the end of the past that are skipped.
    """

    enabled: bool = False
    context_length: int = 1
    gate: bool = True
    layers: int = 0
    prepend_past: bool = True
    past_offset: int = 0


@dataclasses.dataclass(frozen=True)
class Quantiles:
    """How the quantiles are made.

    Attributes:
      levels: odd number of levels, ascending, 0.5 in the middle; empty for no quantiles.
      hidden: width of the hidden layer.
      kernel_size: steps of the convolution over the horizon; odd.
      decoder: None, or how the decoder's states condition the head: averaged over tokens ("pool")
        or projected and flattened ("flatten").
      decoder_features: features of a token for "flatten".
      concatenate: concatenate the condition with the hidden layer instead of adding it.
      shift_median: let the 0.5 quantile differ from the point forecast.
    """

    levels: tuple[float, ...] = ()
    hidden: int = 8
    kernel_size: int = 3
    decoder: Literal["pool", "flatten"] | None = None
    decoder_features: int = 8
    concatenate: bool = False
    shift_median: bool = True


@dataclasses.dataclass(frozen=True)
class Decomposition:
    """Two networks: one forecasts the trend, the other the residual.

    Attributes:
      enabled: whether there are two.
      residual_context_length: steps that the residual network sees; None for all.
      combine_variances: quantiles of the sum lie at the root of the summed squares of both
        distances from the median, instead of at the sum of both quantiles.
      patch_length: of the trend network; None here and below for that of the residual network.
      d_model: likewise.
      num_layers: likewise.
      adaptive_patching_levels: likewise.
      decoder_d_model: likewise.
      decoder_num_layers: likewise.
      register_tokens: likewise.
      spectrum_count: likewise.
      multi_scale: likewise.
    """

    enabled: bool = False
    residual_context_length: int | None = None
    combine_variances: bool = False
    patch_length: int | None = None
    d_model: int | None = None
    num_layers: int | None = None
    adaptive_patching_levels: int | None = None
    decoder_d_model: int | None = None
    decoder_num_layers: int | None = None
    register_tokens: int | None = None
    spectrum_count: int | None = None
    multi_scale: bool | None = None


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyper-parameters; the defaults are those of the published r2 model 512-96.

    Attributes:
      context_length: steps that the model sees; older steps are dropped, and patches are cut from
        the end. Longer than a patch.
      prediction_length: steps that the head forecasts.
      prediction_filter_length: leading steps of the forecast that are kept; None for all.
      patch_length: steps in a patch.
      num_input_channels: number of channels where they are mixed; any number may be given else.
      prediction_channels: positions of the channels to forecast; None for all but the known ones.
      known_channels: positions of the channels that are known ahead.
      categories: number of values of each static category of a series group.
      scaling: how each channel is normalised, see `tsmjax.models.ttm.scaling`.
      minimum_scale: see `tsmjax.models.ttm.scaling`.
      default_scale: see `tsmjax.models.ttm.scaling`.
      mode: whether the backbone mixes channels.
      d_model: width of the backbone's tokens, D.
      num_layers: layers of the backbone, of each level.
      adaptive_patching_levels: levels of adaptive patching in the backbone; 0 for none.
      expansion_factor: hidden width of each perceptron relative to its input.
      dropout: rate of every dropout in the backbone.
      gate: gate behind each block; "none" for no gates.
      gate_groups: groups of "group_sigmoid".
      norm: layer norm or batch norm.
      norm_eps: added to the variance in the norms.
      self_attention_heads: heads of an attention beside each token mixer; 0 for none.
      positions: vectors added to the tokens.
      frequency_vocabulary: number of step lengths that a prefix token tells apart; 0 for no prefix.
      register_tokens: learned tokens in front of the patches.
      spectrum: tokens of the strongest frequencies.
      multi_scale: add patches of averages over 2, 4, 8, … steps.
      base_norm: normalise all tokens of a channel together; always done with `multi_scale`.
      use_decoder: put a decoder between backbone and head.
      decoder_mode: whether the decoder mixes channels.
      decoder_d_model: width of the decoder's tokens, Dd.
      decoder_num_layers: layers of the decoder.
      decoder_adaptive_patching_levels: levels of adaptive patching in the decoder.
      decoder_raw_residual: add projections of the patches to the decoder's input.
      head_dropout: rate of every dropout in the decoder and the head.
      forecast_mixing: corrections across channels, and by values known ahead.
      quantile_head: quantiles; none by default.
      decomposition: forecast trend and residual apart.
      compat: defects of the reference to reproduce.
    """

    context_length: int = 512
    prediction_length: int = 96
    prediction_filter_length: int | None = None
    patch_length: int = 64
    num_input_channels: int = 1
    prediction_channels: tuple[int, ...] | None = None
    known_channels: tuple[int, ...] = ()
    categories: tuple[int, ...] = ()
    scaling: Literal["std", "mean", "none"] = "std"
    minimum_scale: float | None = None
    default_scale: float | None = 1.0
    mode: Mode = "common_channel"
    d_model: int = 192
    num_layers: int = 2
    adaptive_patching_levels: int = 3
    expansion_factor: int = 2
    dropout: float = 0.4
    gate: Literal["softmax", "sigmoid", "glu", "group_sigmoid", "none"] = "softmax"
    gate_groups: int = 8
    norm: Literal["layer", "batch"] = "layer"
    norm_eps: float = 1e-5
    self_attention_heads: int = 0
    positions: Literal["none", "sincos", "random"] = "none"
    frequency_vocabulary: int = 0
    register_tokens: int = 0
    spectrum: Spectrum = Spectrum()
    multi_scale: bool = False
    base_norm: bool = False
    use_decoder: bool = True
    decoder_mode: Mode = "common_channel"
    decoder_d_model: int = 128
    decoder_num_layers: int = 2
    decoder_adaptive_patching_levels: int = 0
    decoder_raw_residual: bool = False
    head_dropout: float = 0.4
    forecast_mixing: ForecastMixing = ForecastMixing()
    quantile_head: Quantiles = Quantiles()
    decomposition: Decomposition = Decomposition()
    compat: Compat = Compat()

    def __post_init__(self):
        _check_sizes(self)
        _check_channels(self)
        _check_quantiles(self.quantile_head)
        if self.decomposition.enabled:
            trend_config(self), residual_config(self)

    @property
    def horizon(self) -> int:
        """Steps of a forecast."""
        return self.prediction_filter_length or self.prediction_length

    @property
    def predicted(self) -> tuple[int, ...] | None:
        """Positions of the channels to forecast, ascending; None for all that are given."""
        if self.prediction_channels is not None:
            return tuple(sorted(self.prediction_channels))
        if self.known_channels:
            known = set(self.known_channels)
            return tuple(i for i in range(self.num_input_channels) if i not in known)
        return None

    @property
    def mixes_channels(self) -> bool:
        """Whether the number of channels is part of the weights."""
        decoder = self.use_decoder and self.decoder_mode == "mix_channel"
        return self.mode == "mix_channel" or decoder or self.forecast_mixing.enabled

    @property
    def num_patches(self) -> int:
        """Tokens that come from the series."""
        if self.multi_scale:
            return sum(patches_of_scales(self.context_length, self.patch_length))
        return self.context_length // self.patch_length

    @property
    def num_tokens(self) -> int:
        """Number of tokens, N: prefix tokens and patches."""
        spectrum = 1 if self.spectrum.one_token and self.spectrum.count else self.spectrum.count
        prefix = bool(self.frequency_vocabulary) + self.register_tokens + spectrum
        return prefix + self.num_patches

    @property
    def quantiles(self) -> tuple[float, ...]:
        """Levels of the forecast; a model without quantiles forecasts one number, called 0.5."""
        return self.quantile_head.levels or (0.5,)

    @property
    def output_patch_size(self) -> int:
        """Steps that come out together: the horizon."""
        return self.horizon

    @property
    def max_output_patches(self) -> int:
        """Horizons of one pass."""
        return 1

    @property
    def mixing(self) -> Mixing:
        """What all blocks of the backbone share."""
        return Mixing(
            expansion=self.expansion_factor,
            dropout=self.dropout,
            gate=None if self.gate == "none" else self.gate,
            gate_groups=self.gate_groups,
            batch_norm=self.norm == "batch",
            epsilon=self.norm_eps,
            heads=self.self_attention_heads,
        )


def patches_of_scales(length: int, patch: int) -> list[int]:
    """Patches of a series of `length` steps, and of its averages over 2, 4, … steps."""
    counts = []
    while length >= patch:
        counts.append(length // patch)
        length //= 2
    return counts


def trend_config(config: Config) -> Config:
    """Config of the trend network of a decomposed model."""
    trend = config.decomposition
    names = {
        *("patch_length", "d_model", "num_layers", "adaptive_patching_levels", "register_tokens"),
        *("decoder_d_model", "decoder_num_layers", "multi_scale"),
    }
    changes = {name: value for name in names if (value := getattr(trend, name)) is not None}
    if trend.spectrum_count is not None:
        changes["spectrum"] = dataclasses.replace(config.spectrum, count=trend.spectrum_count)
    return dataclasses.replace(config, decomposition=Decomposition(), **changes)


def residual_config(config: Config) -> Config:
    """Config of the residual network of a decomposed model."""
    length = config.decomposition.residual_context_length or config.context_length
    return dataclasses.replace(
        config, decomposition=Decomposition(), context_length=min(length, config.context_length)
    )


def _check_sizes(config: Config) -> None:
    """Raise when a size is out of range or does not fit another."""
    least = dict.fromkeys(
        (
            *("context_length", "prediction_length", "patch_length", "num_input_channels"),
            *("d_model", "num_layers", "expansion_factor", "gate_groups", "decoder_d_model"),
            *("decoder_num_layers",),
        ),
        1,
    )
    least |= dict.fromkeys(
        (
            *("adaptive_patching_levels", "decoder_adaptive_patching_levels", "register_tokens"),
            *("self_attention_heads", "frequency_vocabulary"),
        ),
        0,
    )
    for name, low in least.items():
        if getattr(config, name) < low:
            raise InputError(f"model.{name} is {getattr(config, name)}, but must be >= {low}.")
    for name in ("dropout", "head_dropout"):
        if not 0.0 <= getattr(config, name) < 1.0:
            raise InputError(f"model.{name} is {getattr(config, name)}, but must be in [0, 1).")
    if config.context_length <= config.patch_length:
        raise InputError(
            f"model.context_length is {config.context_length}, but must be longer than "
            f"model.patch_length, which is {config.patch_length}."
        )
    if not 0 < config.horizon <= config.prediction_length:
        raise InputError(
            f"model.prediction_filter_length is {config.prediction_filter_length}, but must be "
            f"between 1 and model.prediction_length, which is {config.prediction_length}."
        )
    bins = config.context_length // 2 + 1
    if not 0 <= config.spectrum.count <= bins:
        raise InputError(
            f"model.spectrum.count is {config.spectrum.count}, but a context of "
            f"{config.context_length} steps has {bins} frequencies."
        )
    if config.multi_scale and config.use_decoder and config.decoder_raw_residual:
        raise InputError("model.decoder_raw_residual does not go with model.multi_scale.")
    widths = [("d_model", config.d_model, config.adaptive_patching_levels)]
    if config.use_decoder:
        levels = config.decoder_adaptive_patching_levels
        widths.append(("decoder_d_model", config.decoder_d_model, levels))
    for name, width, levels in widths:
        for level in range(max(levels, 1)):
            factor = level_factor(width, level)
            if width % factor or width // factor % max(config.self_attention_heads, 1):
                raise InputError(
                    f"model.{name} is {width}, but must be a multiple of {factor} (adaptive "
                    f"patching) times {max(config.self_attention_heads, 1)} (attention heads)."
                )


def _check_channels(config: Config) -> None:
    """Raise when the roles of the channels contradict each other."""
    for name in ("prediction_channels", "known_channels"):
        channels = getattr(config, name) or ()
        object.__setattr__(config, name, None if getattr(config, name) is None else tuple(channels))
        if len(set(channels)) != len(channels) or any(
            not 0 <= channel < config.num_input_channels for channel in channels
        ):
            raise InputError(
                f"model.{name} is {list(channels)}, but must hold different positions below "
                f"model.num_input_channels, which is {config.num_input_channels}."
            )
    if both := set(config.predicted or ()) & set(config.known_channels):
        raise InputError(
            f"Channel {min(both)} is in model.prediction_channels and in model.known_channels: "
            "what is known ahead is not forecast."
        )
    if config.predicted == ():
        raise InputError("model.known_channels leaves no channel to forecast.")
    if config.categories and (not config.use_decoder or config.decoder_mode != "mix_channel"):
        raise InputError(
            "model.categories needs model.decoder_mode = 'mix_channel': categories are channels of "
            "the decoder."
        )
    if min(config.categories, default=1) < 1:
        raise InputError(f"model.categories is {list(config.categories)}, but sizes are positive.")
    mixing = config.forecast_mixing
    seen = mixing.context_length + mixing.past_offset
    if min(mixing.context_length, mixing.past_offset, mixing.layers) < 0 or (
        mixing.enabled and seen > config.context_length
    ):
        raise InputError(
            "model.forecast_mixing looks further back than model.context_length, or has a negative "
            "size."
        )


def _check_quantiles(head: Quantiles) -> None:
    """Raise when the levels or sizes of the quantile head are not usable."""
    levels = head.levels
    object.__setattr__(head, "levels", tuple(levels))
    middle = len(levels) // 2
    ordered = all(a < b for a, b in itertools.pairwise(levels))
    if levels and (
        len(levels) % 2 == 0
        or not ordered
        or not math.isclose(levels[middle], 0.5)
        or min(levels) <= 0
        or max(levels) >= 1
    ):
        raise InputError(
            f"model.quantile_head.levels is {list(levels)}, but must be increasing levels between "
            "0 and 1, an odd number, with 0.5 in the middle."
        )
    if head.kernel_size % 2 == 0 or min(head.hidden, head.kernel_size, head.decoder_features) < 1:
        raise InputError("model.quantile_head needs positive sizes and an odd kernel_size.")
