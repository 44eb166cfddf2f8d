"""The equations of the skeleton models once more, in PyTorch, with the published tensor names.

Activations are (N, C, T, V). Constants that a checkpoint stores are buffers here too. The parity
tests and `benchmarks.last_step` run these; `tsmjax.models.last` documents the layers.
"""

# ruff: noqa: D101, D102, D103

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tsmjax.models.last.blocks import dct_matrix
from tsmjax.models.last.graph import shift_table, subsets


def stored_graph(hops, norm, truncated):
    """(K, V, V), row = sender, as published checkpoints store it."""
    return torch.tensor(subsets("ntu25", hops, norm, truncated).swapaxes(1, 2).copy())


def conv(inputs, outputs, bias=False, stride=1):
    return nn.Conv2d(inputs, outputs, 1, (stride, 1), bias=bias)


def depthwise(channels, size, stride=1, dilation=1):
    padding = (size - 1) * dilation // 2
    return nn.Conv2d(
        channels, channels, (size, 1), (stride, 1), (padding, 0), (dilation, 1), channels, False
    )


class JointAttention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        inner = max(4, channels // 4)

        def squeeze(shape):
            return nn.Sequential(
                nn.AdaptiveAvgPool2d(shape),
                conv(channels, inner),
                nn.BatchNorm2d(inner),
                nn.ReLU(),
                conv(inner, channels),
                nn.Sigmoid(),
            )

        self.temporal_att, self.spatial_att = squeeze((None, 1)), squeeze((1, None))
        self.alpha = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x):
        return x + self.alpha * (x * self.temporal_att(x) * self.spatial_att(x) - x)


def shortcut(inputs, outputs, stride, bias):
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(conv(inputs, outputs, bias, stride), nn.BatchNorm2d(outputs))


# --------------------------------------------------------------------------------------- LAST-E


class StreamFusion(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.stream_bn = nn.ModuleList([nn.BatchNorm2d(3) for _ in range(3)])
        self.stem, self.stem_bn = conv(3, outputs), nn.BatchNorm2d(outputs)
        self.stream_weights = nn.Parameter(torch.zeros(3, outputs))

    def forward(self, streams):
        x = torch.cat([norm(s) for norm, s in zip(self.stream_bn, streams, strict=True)])
        parts = torch.relu(self.stem_bn(self.stem(x))).chunk(3)
        weights = torch.softmax(self.stream_weights, 0)[:, None, :, None, None]
        return (torch.stack(parts) * weights).sum(0)


class DirectionalGCN(nn.Module):
    def __init__(self, inputs, outputs, graph):
        super().__init__()
        for k, subset in enumerate(graph):
            self.register_buffer(f"A_{k}", subset)
        self.alpha = nn.Parameter(torch.zeros(len(graph), inputs))
        self.conv = conv(inputs, outputs)

    def forward(self, x):
        weights = torch.softmax(self.alpha, 0)
        mixed = (
            (x @ getattr(self, f"A_{k}")) * weights[k][None, :, None, None]
            for k in range(len(weights))
        )
        return self.conv(sum(mixed))


class MultiScaleTCN(nn.Module):
    def __init__(self, channels, stride):
        super().__init__()
        half = channels // 2

        def branch(dilation):
            return nn.Sequential(
                nn.BatchNorm2d(half),
                nn.ReLU(),
                depthwise(half, 9, stride, dilation),
                conv(half, half),
                nn.BatchNorm2d(half),
            )

        self.branch1, self.branch2 = branch(1), branch(2)

    def forward(self, x):
        first, second = x.chunk(2, 1)
        return torch.cat([self.branch1(first), self.branch2(second)], 1)


class LightBlock(nn.Module):
    def __init__(self, inputs, outputs, stride, attention, graph):
        super().__init__()
        self.gcn, self.gcn_bn = DirectionalGCN(inputs, outputs, graph), nn.BatchNorm2d(outputs)
        self.st_att = JointAttention(outputs) if attention else nn.Identity()
        self.tcn = MultiScaleTCN(outputs, stride)
        self.residual_path = shortcut(inputs, outputs, stride, True)

    def forward(self, x):
        y = self.tcn(self.st_att(torch.relu(self.gcn_bn(self.gcn(x)))))
        return torch.relu(y + self.residual_path(x))


class LastE(nn.Module):
    def __init__(self, size, classes, norm="column_subset", truncated=True):
        super().__init__()
        graph = stored_graph(1, norm, truncated)
        self.fusion, width = StreamFusion(size.channels[0]), size.channels[0]
        for stage in range(3):
            blocks = []
            for block in range(size.blocks[stage]):
                stride = 2 if stage and not block else 1
                shape = (width, size.channels[stage], stride, size.attention[stage])
                blocks.append(LightBlock(*shape, graph))
                width = size.channels[stage]
            setattr(self, f"stage{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(width, classes)

    def forward(self, streams):
        x = self.stage3(self.stage2(self.stage1(self.fusion(streams))))
        return self.fc(x.mean((2, 3)))


# ------------------------------------------------------------------------------------- LAST-v2


class AdaptiveGCN(nn.Module):
    def __init__(self, inputs, outputs, graph):
        super().__init__()
        self.register_buffer("A_physical", graph)
        self.A_learned = nn.Parameter(torch.zeros(25, 25))
        self.node_proj = conv(inputs, max(4, inputs // 8))
        self.subset_convs = nn.ModuleList([conv(inputs, outputs) for _ in range(5)])

    def forward(self, x):
        z = F.normalize(self.node_proj(x.mean(2, keepdim=True)).squeeze(2), dim=1)
        clips = torch.softmax(z.transpose(1, 2) @ z, -1)
        A = self.A_learned.abs()
        root = (1 + A.sum(1)).sqrt()
        graphs = [*self.A_physical, A / root[:, None] / root[None, :]]
        y = self.subset_convs[4](torch.einsum("nctv,nvw->nctw", x, clips))
        return y + sum(c(x @ A) for c, A in zip(self.subset_convs[:4], graphs, strict=True))


class LinearAttention(nn.Module):
    def __init__(self, channels, stride):
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)
        self.stride = stride

    def forward(self, x):
        N, C, T, V = x.shape
        qkv = self.qkv(x.permute(0, 3, 2, 1).reshape(N * V, T, C)).reshape(N * V, T, 3, 4, C // 4)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        y = q @ (k.transpose(2, 3) @ v) / (q @ k.sum(2)[..., None]).clamp(min=1e-4)
        y = self.proj(y.transpose(1, 2).reshape(N * V, T, C)).reshape(N, V, T, C)
        y = y.permute(0, 3, 2, 1)
        return y if self.stride == 1 else F.avg_pool2d(y, (3, 1), (self.stride, 1), (1, 0))


class EffBlock(nn.Module):
    def __init__(self, inputs, outputs, stride, attention, graph):
        super().__init__()
        self.gcn, self.gcn_bn = AdaptiveGCN(inputs, outputs, graph), nn.BatchNorm2d(outputs)
        self.st_att = JointAttention(outputs)
        if attention:
            self.tcn = LinearAttention(outputs, stride)
        else:
            separable = nn.Sequential()
            separable.add_module("depthwise", depthwise(outputs, 9, stride))
            separable.add_module("pointwise", conv(outputs, outputs))
            self.tcn = nn.Sequential(
                nn.BatchNorm2d(outputs), nn.ReLU(), separable, nn.BatchNorm2d(outputs)
            )
        self.residual_path = shortcut(inputs, outputs, stride, True)

    def forward(self, x):
        y = self.tcn(self.st_att(torch.relu(self.gcn_bn(self.gcn(x)))))
        return torch.relu(y + self.residual_path(x))


class LastV2(nn.Module):
    def __init__(self, size, classes, norm="column", truncated=True):
        super().__init__()
        self.register_buffer("A", stored_graph(1, norm, truncated))
        self.data_bn = nn.ModuleList([nn.BatchNorm2d(3) for _ in range(3)])
        blocks, width = [], 3
        for stage in range(3):
            for block in range(size.blocks[stage]):
                stride = 2 if stage and not block else 1
                shape = (width, size.channels[stage], stride, size.attention[stage])
                blocks.append(EffBlock(*shape, self.A))
                width = size.channels[stage]
        self.backbone, self.fc = nn.Sequential(*blocks), nn.Linear(width, classes)

    def forward(self, streams):
        chances = []
        for norm, x in zip(self.data_bn, streams, strict=True):
            chances.append(torch.softmax(self.fc(self.backbone(norm(x)).mean((2, 3))), -1))
        return torch.log(sum(chances) / 3)


# ----------------------------------------------------------------------- LAST-E v3 and ShiftFuse


class StreamConcat(nn.Module):
    def __init__(self, outputs, streams=3):
        super().__init__()
        self.stream_bn = nn.ModuleList([nn.BatchNorm2d(3) for _ in range(streams)])
        stem = conv(3 * streams, outputs)
        self.proj = nn.Sequential(stem, nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, streams):
        return self.proj(
            torch.cat([norm(s) for norm, s in zip(self.stream_bn, streams, strict=True)], 1)
        )


class SeparableTCN(nn.Module):
    def __init__(self, channels, stride, expansion=2.0, subsample=False):
        super().__init__()
        inner, self.every = int(channels * expansion), stride if subsample else 1
        self.expand_conv = nn.Sequential(conv(channels, inner), nn.BatchNorm2d(inner))
        self.depth_conv = nn.Sequential(depthwise(inner, 5, stride), nn.BatchNorm2d(inner))
        self.point_conv = nn.Sequential(conv(inner, channels), nn.BatchNorm2d(channels))
        self.residual = shortcut(channels, channels, 1 if subsample else stride, False)

    def forward(self, x):
        y = F.hardswish(self.depth_conv(F.hardswish(self.expand_conv(x))))
        return self.point_conv(y) + self.residual(x[:, :, :: self.every])


class SpatialGCN(nn.Module):
    def __init__(self, inputs, outputs, graph, attention):
        super().__init__()
        K = len(graph)
        self.gcn, self.bn = conv(inputs, K * outputs), nn.BatchNorm2d(outputs)
        self.register_buffer("A", graph)
        self.edge = nn.Parameter(torch.ones_like(graph))
        self.subset_att = None
        if attention:
            self.subset_att = nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(K * outputs, K, bias=False),
                nn.Softmax(1),
            )

    def forward(self, x):
        y = self.gcn(x).unflatten(1, (len(self.A), -1))
        y = torch.einsum("nkctv,kvw->nkctw", y, self.A * self.edge)
        if self.subset_att:
            y = y * self.subset_att(y.flatten(1, 2))[:, :, None, None, None]
        return self.bn(y.sum(1))


class MotionGate(nn.Module):
    def __init__(self, channels, hybrid):
        super().__init__()
        inner = max(4, channels // 4)
        self.mlp = nn.Sequential(
            nn.Linear(4 * channels if hybrid else channels, inner, bias=False),
            nn.ReLU(),
            nn.Linear(inner, channels, bias=False),
            nn.Sigmoid(),
        )
        self.gate_alpha = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.hybrid = hybrid

    def forward(self, x):
        seen = [x.diff(dim=2).abs().mean((2, 3))]
        if self.hybrid:
            power = torch.fft.rfft(x, dim=2).abs() ** 2
            third = power.shape[2] // 3
            bands = (power[:, :, :third], power[:, :, third : 2 * third], power[:, :, 2 * third :])
            seen += [band.mean((2, 3)) for band in bands]
        gate = self.mlp(torch.cat(seen, 1))[:, :, None, None]
        return x + self.gate_alpha * (x * gate - x)


class V3Block(nn.Module):
    def __init__(self, inputs, outputs, stride, hybrid, attention, graph):
        super().__init__()
        self.gcn = SpatialGCN(inputs, outputs, graph, attention)
        self.tcns = nn.Sequential(SeparableTCN(outputs, stride))
        self.gate, self.st_att = MotionGate(outputs, hybrid), JointAttention(outputs)
        self.residual = shortcut(inputs, outputs, stride, False)

    def forward(self, x):
        return self.residual(x) + self.st_att(self.gate(self.tcns(F.hardswish(self.gcn(x)))))


class Head(nn.Module):
    """Gated pooling, BatchNorm, classifier and, for bottleneck losses, two more projections."""

    def __init__(self, channels, classes, bottleneck):
        super().__init__()
        self.pool_gate = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.head_bn, self.fc = nn.BatchNorm1d(channels), nn.Linear(channels, classes)
        if bottleneck:
            size = min(128, channels)
            self.fc_mu, self.fc_logvar = nn.Linear(channels, size), nn.Linear(channels, size)

    def classify(self, x):
        gate = torch.sigmoid(self.pool_gate)[:, :, 0, 0]
        return self.fc(self.head_bn(gate * x.mean((2, 3)) + (1 - gate) * x.amax((2, 3))))


class LastEV3(Head):
    def __init__(self, size, classes, norm="graph", truncated=True):
        super().__init__(size.channels[-1], classes, size.bottleneck)
        graph = stored_graph(size.hops, norm, truncated)
        self.register_buffer("A", graph)
        self.fusion, width, stages = StreamConcat(size.stem), size.stem, []
        for stage in range(3):
            blocks = []
            for block in range(size.blocks[stage]):
                stride = 2 if stage and not block else 1
                hybrid = size.hybrid and stage == 2
                shape = (width, size.channels[stage], stride, hybrid, size.subset_attention)
                blocks.append(V3Block(*shape, graph))
                width = size.channels[stage]
            stages.append(nn.ModuleList(blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, streams):
        x = self.fusion(streams)
        for block in (block for stage in self.stages for block in stage):
            x = block(x)
        return self.classify(x)


class Table(nn.Module):
    """One tensor of a given name, zero at first."""

    def __init__(self, name, *shape):
        super().__init__()
        self.name = name
        self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    def forward(self):
        return getattr(self, self.name)


class RankOne(nn.Module):
    """A vector of the channels and one of the frames, which are added."""

    def __init__(self, channels, frames):
        super().__init__()
        self.channel_logit = nn.Parameter(torch.zeros(channels))
        self.frame_logit = nn.Parameter(torch.zeros(frames))

    def forward(self):
        return self.channel_logit[:, None, None] + self.frame_logit[:, None]


class ShiftFuseBlock(nn.Module):
    def __init__(self, inputs, outputs, stride, frames, hops, parts, skeleton, embedding):
        super().__init__()
        self.shift = nn.Module()
        table = torch.tensor(shift_table(skeleton, inputs, hops, parts.shift))
        self.shift.register_buffer("shift_indices", table)
        self.pw_conv = nn.Sequential(conv(inputs, outputs), nn.BatchNorm2d(outputs))
        self.joint_embed = nn.Module()
        self.joint_embed.embed = embedding
        self.dct_gate = Table("freq_mask", 1, outputs, frames, 1)
        self.dct_gate.register_buffer("dct", torch.tensor(dct_matrix(frames)))
        self.tcn = SeparableTCN(outputs, stride, parts.expansion, parts.inner_residual != "conv")
        rank_one = parts.frame_gate == "rank_one"
        left = frames // stride
        self.frame_gate = (
            RankOne(outputs, left) if rank_one else Table("gate_logit", 1, outputs, left, 1)
        )
        self.residual = shortcut(inputs, outputs, stride, False)

    def forward(self, x):
        index = self.shift.shift_indices[None, :, None].expand_as(x)
        y = F.hardswish(self.pw_conv(x.gather(3, index)))
        y = y + self.joint_embed.embed.weight.T[None, :, None]
        dct = self.dct_gate.dct
        spectrum = torch.einsum("st,nctv->ncsv", dct, y) * torch.sigmoid(self.dct_gate())
        y = y + torch.einsum("st,ncsv->nctv", dct, spectrum)
        return self.residual(x) + self.tcn(y) * torch.sigmoid(self.frame_gate())


class ShiftFuse(Head):
    def __init__(self, size, classes, frames, skeleton="ntu25", joints=25, streams=3):
        super().__init__(size.channels[-1], classes, False)
        self.fusion, width, stages = StreamConcat(size.stem, streams), size.stem, []
        for stage in range(3):
            blocks, embedding = [], None
            for block in range(size.blocks[stage]):
                stride = 2 if stage and not block else 1
                if embedding is None or size.parts.joint_embedding == "block":
                    embedding = nn.Embedding(joints, size.channels[stage])
                shape = (width, size.channels[stage], stride, frames, size.hops)
                blocks.append(ShiftFuseBlock(*shape, size.parts, skeleton, embedding))
                width, frames = size.channels[stage], frames // stride
            stages.append(nn.ModuleList(blocks))
        self.stages = nn.ModuleList(stages)

    forward = LastEV3.forward
