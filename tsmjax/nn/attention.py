"""Scaled dot-product attention, on the fastest kernel that the backend and the shapes allow."""

from __future__ import annotations

import functools
import logging
import re

import jax
import jax.numpy as jnp

from tsmjax.nn.dropout import dropout

log = logging.getLogger(__name__)


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array | None = None,
    *,
    scale: float,
    causal: bool = False,
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
    bias: jax.Array | None = None,
) -> jax.Array:
    """Attend from every query to the keys that `mask` allows.

    The softmax is fp32. A row whose keys are all masked attends uniformly, so that it and its
    gradient stay finite. Dropout acts on the probabilities.

    Args:
      q: queries (B, Tq, heads, features).
      k: keys (B, Tk, key heads, features); each serves heads / key heads neighbouring queries.
      v: values (B, Tk, key heads, features).
      mask: boolean, broadcastable to (B, heads, Tq, Tk); False hides a key.
      scale: factor on the logits; it has no default because T5-like models use 1, not 1/√features.
      causal: hide the keys behind each query as well; needs Tq = Tk.
      dropout_rate: probability of dropping an attention weight.
      key: dropout key; None switches dropout off.
      bias: added to the logits, broadcastable to (B, heads, Tq, Tk).

    Returns:
      (B, Tq, heads, features) in the dtype of `v`.

    Source: Vaswani et al., "Attention Is All You Need" (2017), equation 1; Ainslie et al., "GQA"
    (2023), section 2.2.
    """
    drops = key is not None and dropout_rate > 0.0
    # The fused kernel computes gradients of a bias slowly, or not at all.
    if not drops and bias is None and _cudnn_fits(q, k):
        return _cudnn(q, k, v, mask, scale, causal)
    _log_once("XLA", f"{jax.default_backend()}, {q.dtype}")
    if (shared := q.shape[2] // k.shape[2]) > 1:
        k, v = (jnp.repeat(x, shared, axis=2) for x in (k, v))
    logits = scale * jnp.einsum("bqnh,bknh->bnqk", q, k, preferred_element_type=jnp.float32)
    if bias is not None:
        logits = logits + bias.astype(jnp.float32)
    if causal:
        before = jnp.tri(q.shape[1], k.shape[1], dtype=bool)
        mask = before if mask is None else before & mask
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
    weights = dropout(jax.nn.softmax(logits, axis=-1).astype(v.dtype), dropout_rate, key)
    return jnp.einsum("bnqk,bknh->bqnh", weights, v)


def _cudnn_fits(q: jax.Array, k: jax.Array) -> bool:
    """Whether cuDNN's fused kernel takes these shapes, and is worth it (not for tiny groups)."""
    return (
        _has_flash_attention()
        and q.dtype in (jnp.bfloat16, jnp.float16)
        and q.shape[-1] % 8 == 0
        and q.shape[-1] <= 128
        and min(q.shape[1], k.shape[1]) >= 64
    )


def _cudnn(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, scale: float, causal: bool
) -> jax.Array:
    _log_once("cuDNN", f"{jax.default_backend()}, {q.dtype}")
    (B, Tq), Tk = q.shape[:2], k.shape[1]
    # The kernel wants even lengths in training and a mask that is full-size in both time axes.
    pad_q, pad_k = Tq % 2, Tk % 2
    if mask is None and not causal:  # causal queries do not see the padding behind them
        mask = jnp.ones((1, 1, 1, 1), bool)
    if mask is not None:
        mask = jnp.broadcast_to(mask, (B, mask.shape[1], Tq, Tk))
        mask = jnp.pad(mask, ((0, 0), (0, 0), (0, pad_q), (0, pad_k)))
    q = jnp.pad(q, ((0, 0), (0, pad_q), (0, 0), (0, 0)))
    k, v = (jnp.pad(x, ((0, 0), (0, pad_k), (0, 0), (0, 0))) for x in (k, v))
    y = jax.nn.dot_product_attention(
        q, k, v, mask=mask, scale=scale, is_causal=causal, implementation="cudnn"
    )
    return y[:, :Tq]


@functools.cache
def _has_flash_attention() -> bool:
    """Whether the default device is an NVIDIA GPU of compute capability 8 (Ampere) or later."""
    capability = getattr(jax.devices()[0], "compute_capability", "")
    return bool(re.fullmatch(r"\d+\.\d+", str(capability))) and float(capability) >= 8.0


@functools.cache
def _log_once(kernel: str, where: str) -> None:
    log.info("Attention runs on the %s kernel (%s).", kernel, where)
