"""PMT and LVMT once more, in plain and slow code from the tensors of an original file.

It follows the papers (arXiv 2603.25398, 2609.34895) one formula after the other, in float64 and
for one video, and shares nothing with the package.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

PREFIX = 5
"""Class token and four registers."""


class PlainPmt:
    """A network of one file; it keeps the queries that enter the next frame."""

    def __init__(self, tensors: dict[str, Tensor], heads: int, taps: list[int]) -> None:
        self.tensors = {key.removeprefix('backbone.'): v.double() for key, v in tensors.items()}
        self.heads, self.taps = heads, taps
        self.is_dinov3 = 'encoder.backbone.patch_embed.register_tokens' in self.tensors
        self.q = self['decoder.q.weight']
        self.queries = self.q

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def step(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Compute class logits (Q, K + 1) and mask logits (Q, h, w) of a frame (3, H, W)."""
        rows, columns = frame.shape[1] // 16, frame.shape[2] // 16
        places = [
            (2 * (y + 0.5) / rows - 1, 2 * (x + 0.5) / columns - 1)
            for y in range(rows)
            for x in range(columns)
        ]
        tokens = self.lateral(self.encode(frame.double(), rows, columns, places))
        x = torch.cat([self.queries, tokens])
        for n in self.numbers('decoder.blocks'):
            x = self.block(f'decoder.blocks.{n}.', x, places, eps=1e-5)
        num_queries = len(self.q)
        leaving = x[:num_queries]
        x = self.norm('decoder.decoder_norm.', x, 1e-5)
        outputs = self.heads_of(x[:num_queries], x[num_queries + PREFIX :], rows, columns)
        self.queries = self.propagate(leaving)
        return outputs

    def encode(self, frame: Tensor, rows: int, columns: int, places: list) -> list[Tensor]:
        """Run the ViT, and return its tokens after the tapped blocks and its final norm."""
        vit = 'encoder.backbone.'
        patches = [
            frame[:, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16].reshape(-1)
            for y in range(rows)
            for x in range(columns)
        ]
        if self.is_dinov3:
            names = ('patch_embed.patch_embeddings', 'patch_embed.cls_token')
            registers = 'patch_embed.register_tokens'
        else:
            names, registers = ('patch_embed.proj', 'cls_token'), 'reg_token'
        weight = self[f'{vit}{names[0]}.weight'].flatten(1)
        x = torch.stack(patches) @ weight.T + self[f'{vit}{names[0]}.bias']
        if not self.is_dinov3:
            table = self[vit + 'pos_embed'][0]
            side = math.isqrt(len(table))
            table = table.T.reshape(1, -1, side, side)
            table = torch.nn.functional.interpolate(
                table, (rows, columns), mode='bicubic', antialias=True
            )
            x = x + table[0].flatten(1).T
        x = torch.cat([self[vit + names[1]][0], self[vit + registers][0], x])
        levels = []
        eps = 1e-5 if self.is_dinov3 else 1e-6
        for n in self.numbers(vit + 'blocks'):
            if self.is_dinov3:
                x = self.block(f'{vit}blocks.{n}.', x, places, eps)
            else:
                x = self.dinov2_block(f'{vit}blocks.{n}.', x)
            if n in self.taps:
                levels.append(self.norm(vit + 'norm.', x, eps))
        return levels

    def lateral(self, levels: list[Tensor]) -> Tensor:
        total = torch.zeros_like(levels[0])
        for i, x in enumerate(levels):
            bn = f'bn.{i}.'
            x = (x - self[bn + 'running_mean']) / torch.sqrt(self[bn + 'running_var'] + 1e-5)
            x = x * self[bn + 'weight'] + self[bn + 'bias']
            mlp = f'decoder.lateral_projections.{i}.'
            x = x + self.linear(mlp + '2.', gelu(self.linear(mlp + '0.', x)))
            total = total + x * self[f'decoder.scalers.{i}']
        return total

    def block(self, stem: str, x: Tensor, places: list, eps: float) -> Tensor:
        """Run a block of DINOv3's design."""
        normed = self.norm(stem + 'norm1.', x, eps)
        attention = stem + 'attention.'
        q = self.linear(attention + 'q_proj.', normed)
        k = normed @ self[attention + 'k_proj.weight'].T
        v = self.linear(attention + 'v_proj.', normed)
        mixed = self.linear(attention + 'o_proj.', self.attend(q, k, v, places))
        x = x + mixed * self[stem + 'layer_scale1.lambda1']
        hidden = gelu(self.linear(stem + 'mlp.up_proj.', self.norm(stem + 'norm2.', x, eps)))
        return (
            x + self.linear(stem + 'mlp.down_proj.', hidden) * self[stem + 'layer_scale2.lambda1']
        )

    def dinov2_block(self, stem: str, x: Tensor) -> Tensor:
        q, k, v = self.linear(stem + 'attn.qkv.', self.norm(stem + 'norm1.', x, 1e-6)).chunk(3, 1)
        mixed = self.linear(stem + 'attn.proj.', self.attend(q, k, v, []))
        x = x + mixed * self[stem + 'ls1.gamma']
        hidden = gelu(self.linear(stem + 'mlp.fc1.', self.norm(stem + 'norm2.', x, 1e-6)))
        return x + self.linear(stem + 'mlp.fc2.', hidden) * self[stem + 'ls2.gamma']

    def attend(self, q: Tensor, k: Tensor, v: Tensor, places: list) -> Tensor:
        size = q.shape[1] // self.heads
        results = []
        for n in range(self.heads):
            part = slice(n * size, (n + 1) * size)
            queries, keys = q[:, part], k[:, part]
            if places:
                queries, keys = rotate(queries, places), rotate(keys, places)
            weights = torch.softmax(queries @ keys.T / math.sqrt(size), dim=1)
            results.append(weights @ v[:, part])
        return torch.cat(results, dim=1)

    def heads_of(
        self, queries: Tensor, patches: Tensor, rows: int, columns: int
    ) -> tuple[Tensor, Tensor]:
        embeddings = queries
        for n in (0, 2):
            embeddings = gelu(self.linear(f'decoder.mask_head.{n}.', embeddings))
        embeddings = self.linear('decoder.mask_head.4.', embeddings)
        grid = patches.reshape(rows, columns, -1)
        for n in self.numbers('decoder.upscale'):
            grid = self.upscale(f'decoder.upscale.{n}.', grid)
        masks = torch.einsum('qc,hwc->qhw', embeddings, grid)
        return self.linear('decoder.class_head.', queries), masks

    def upscale(self, stem: str, grid: Tensor) -> Tensor:
        """Double a grid: (h, w, C) -> (2h, 2w, C)."""
        rows, columns, channels = grid.shape
        weight = self[stem + 'conv1.weight']  # in, out, 2, 2
        finer = grid.new_zeros(2 * rows, 2 * columns, channels)
        for dy in range(2):
            for dx in range(2):
                finer[dy::2, dx::2] = grid @ weight[:, :, dy, dx] + self[stem + 'conv1.bias']
        finer = gelu(finer)
        padded = grid.new_zeros(2 * rows + 2, 2 * columns + 2, channels)
        padded[1:-1, 1:-1] = finer
        weight = self[stem + 'conv2.weight']  # channels, 1, 3, 3
        mixed = torch.zeros_like(finer)
        for dy in range(3):
            for dx in range(3):
                shifted = padded[dy : dy + 2 * rows, dx : dx + 2 * columns]
                mixed = mixed + shifted * weight[:, 0, dy, dx]
        return self.norm(stem + 'norm.', mixed, 1e-6)

    def propagate(self, leaving: Tensor) -> Tensor:
        if 'decoder.query_updater.weight' in self.tensors:
            return self.linear('decoder.query_updater.', leaving) + self.q
        gru = 'decoder.query_gru.'
        given = leaving @ self[gru + 'weight_ih'].T + self[gru + 'bias_ih']
        kept = self.queries @ self[gru + 'weight_hh'].T + self[gru + 'bias_hh']
        (ir, iz, new), (hr, hz, old) = given.chunk(3, 1), kept.chunk(3, 1)
        r, z = torch.sigmoid(ir + hr), torch.sigmoid(iz + hz)
        return (1 - z) * torch.tanh(new + r * old) + z * self.queries

    def linear(self, stem: str, x: Tensor) -> Tensor:
        return x @ self[stem + 'weight'].T + self[stem + 'bias']

    def norm(self, stem: str, x: Tensor, eps: float) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        var = centred.square().mean(-1, keepdim=True)
        return centred / torch.sqrt(var + eps) * self[stem + 'weight'] + self[stem + 'bias']

    def numbers(self, stem: str) -> range:
        parts = [key[len(stem) + 1 :] for key in self.tensors if key.startswith(stem + '.')]
        return range(1 + max(int(part.partition('.')[0]) for part in parts))


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def rotate(x: Tensor, places: list[tuple[float, float]]) -> Tensor:
    """Turn the tokens of the patches, which are the last, by their places in the image.

    Channel i of the first half and channel i of the second are turned together. The first half of
    the angles belongs to y, the other one to x, each with periods 100 ** (4 i / D) for D channels.
    """
    num, size = len(places), x.shape[1]
    turned = x.clone()
    for n, (y, along) in enumerate(places):
        for i in range(size // 2):
            place, j = (y, i) if i < size // 4 else (along, i - size // 4)
            angle = 2 * math.pi * place / 100 ** (4 * j / size)
            first, second = x[-num + n, i], x[-num + n, i + size // 2]
            turned[-num + n, i] = first * math.cos(angle) - second * math.sin(angle)
            turned[-num + n, i + size // 2] = second * math.cos(angle) + first * math.sin(angle)
    return turned
