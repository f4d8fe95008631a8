"""Faster linear layers and attention for inference on x86 CPUs with AVX-512.

torch multiplies float32 matrices by MKL, which runs its AVX2 code on CPUs of other makers than
Intel even where they have AVX-512. Its fused attention multiplies small blocks, by MKL too, and in
bf16 reaches a fraction of what the products alone reach, except with AMX. oneDNN, which torch
brings along and calls for convolutions, uses AVX-512 on every CPU. Within `faster_inference` the
layers of a network are computed by oneDNN's products where this is faster, whatever the network;
docs/performance.md has the figures.

Letters: B batch, H heads, N tokens, D channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _get_current_dispatch_mode

from videomt_ros.model.device import cpu_features, cpu_vendor

CHUNK = 2**20
"""Number of attention scores that are computed at a time, so that they stay in the cache."""
MIN_TOKENS = 128
"""Number of tokens below which the calls of single products take longer than torch's attention."""

_IS_RECENT = hasattr(torch.library, 'custom_op')
"""Whether this torch is 2.4 or later. An older one computes everything in its own forms."""


def faster_inference(frames: Tensor) -> AbstractContextManager[object]:
    """Return a context in which layers run in their fastest form for frames like these.

    Args:
        frames: input of the network; its device and dtype decide.
    """
    faster = is_cpu_inference(frames) and onednn_is_faster(frames.dtype)
    return _Replacing(_FORMS) if faster else nullcontext()


def is_cpu_inference(x: Tensor) -> bool:
    """Tell whether a form may be chosen for speed on a CPU alone.

    It may not where gradients are recorded, and where a compiler, an exporter or a counter of
    operations looks at the network, since those know torch's own forms.

    Args:
        x: input of a layer or of the network.
    """
    return (
        _IS_RECENT
        and x.device.type == 'cpu'
        and not (
            torch.compiler.is_compiling()
            or torch.is_grad_enabled()
            or torch.is_autocast_enabled('cpu')
            or _get_current_dispatch_mode() is not None
        )
    )


def strips_are_faster(x: Tensor) -> bool:
    """Tell whether masks are computed strip by strip, see `cpu_masks`.

    In float32 the matrix product in place of the transposed convolution, which oneDNN computes,
    needs AVX-512: by MKL's AVX2 code a step took 160 ms for the masks, and 123 without strips.

    Args:
        x: tokens of the network.
    """
    has_avx512 = torch.backends.cpu.get_cpu_capability() == 'AVX512'
    return is_cpu_inference(x) and (x.dtype != torch.float32 or has_avx512)


@cache
def onednn_is_faster(dtype: torch.dtype) -> bool:
    """Tell whether oneDNN's products are faster on this CPU than what torch chooses."""
    if (
        not _IS_RECENT
        or not torch.backends.mkldnn.is_available()
        or not hasattr(torch.ops.mkldnn, '_linear_pointwise')
        or torch.backends.cpu.get_cpu_capability() != 'AVX512'
    ):
        return False
    if dtype == torch.float32:
        return cpu_vendor() not in ('GenuineIntel', '')  # on Intel's MKL runs its AVX-512 code
    if dtype == torch.bfloat16:
        # With AMX torch's fused attention multiplies by AMX, and is faster than separate products.
        return 'avx512_bf16' in cpu_features() and 'amx_tile' not in cpu_features()
    return False


def faster_program(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Return a context in which a network is traced to be compiled for this machine.

    A compiler lays out the weights of linear layers itself, but knows no faster attention than
    torch's; where there is one, the program calls it. It is called by the name that this module
    registers, so the module must be imported before the program is loaded.
    """
    if device.type == 'cpu' and onednn_is_faster(dtype):
        return _Replacing({F.scaled_dot_product_attention: _traced_attention})
    return nullcontext()


class _Replacing(TorchFunctionMode):
    """Replacement of functions of torch, in this thread."""

    def __init__(self, forms: dict[Any, Callable[..., Tensor]]) -> None:
        super().__init__()
        self._forms = forms

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return self._forms.get(func, func)(*args, **(kwargs or {}))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute `torch.nn.functional.linear` by oneDNN."""
    # oneDNN has fast forms for matrices in order alone, transposed or not.
    if not weight.is_contiguous() and not weight.t().is_contiguous():
        weight = weight.contiguous()
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, 'none', [], '')


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    **others: Any,
) -> Tensor:
    """Compute `torch.nn.functional.scaled_dot_product_attention` by oneDNN.

    Without mask and dropout, and for `MIN_TOKENS` or more; torch's own form computes the rest.
    In bf16 scores and weights are rounded to bf16, while sums are float32.

    Args:
        query: (B, H, N, D), like key and value.
        key: what the queries are compared with.
        value: what is averaged.
        attn_mask: as in torch.
        dropout_p: as in torch.
        others: as in torch.

    Returns:
        (B, H, N, D), in memory (B, N, H, D), which is the order that the next layer reads.
    """
    special = attn_mask is not None or dropout_p or any(others.values()) or query.ndim != 4
    if special or query.shape[2] < MIN_TOKENS:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=attn_mask, dropout_p=dropout_p, **others
        )
    batch_size, num_heads, num_tokens, head_size = query.shape
    # The scale is a power of two for heads of 64 channels, thus exact in any precision.
    query = (query * head_size**-0.5).contiguous()
    key, value = key.contiguous(), value.contiguous()
    num_chunks = -(-num_tokens * key.shape[2] // CHUNK)
    averages = query.new_empty(batch_size, num_tokens, num_heads, value.shape[3])
    for b in range(batch_size):
        for h in range(num_heads):
            values = value[b, h].t()
            rows = query[b, h].tensor_split(num_chunks)
            for part, result in zip(rows, averages[b, :, h].tensor_split(num_chunks), strict=True):
                weights = torch.softmax(linear(part, key[b, h]), dim=-1)
                result.copy_(linear(weights, values))
    return averages.transpose(1, 2)


if _IS_RECENT:

    @torch.library.custom_op('videomt_ros::attention', mutates_args=())
    def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Compute `attention` as one operation of torch, into which a compiler does not look."""
        averages = attention(query, key, value)
        # Torch's own form promises no order in memory.
        return averages.transpose(1, 2).contiguous().transpose(1, 2)

    @_attention.register_fake
    def _(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch_size, num_heads, num_tokens, _ = query.shape
        return query.new_empty(batch_size, num_tokens, num_heads, value.shape[3]).transpose(1, 2)


def _traced_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
) -> Tensor:
    """Call `_attention`; the blocks of a network pass no mask and no dropout in inference."""
    assert attn_mask is None and not dropout_p and not is_causal
    return _attention(query, key, value)


_FORMS: dict[Any, Callable[..., Tensor]] = {
    F.linear: linear,
    F.scaled_dot_product_attention: attention,
}
"""Our form of each function of torch that has one."""
