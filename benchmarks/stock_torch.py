"""The reference network in PyTorch, for `train_step.py`.

The same layers as ours, by PyTorch's own modules: log-mel features, zeroed
padding, `BatchNorm`, `torch.nn.LSTM` (on padded batches, which oneDNN has a
fused kernel for, or on packed ones), `CTCLoss`, fused Adam. The second bias of
each LSTM, which adds nothing to the first, is left at zero.
"""

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.nn.utils.rnn import pad_packed_sequence as pad


class Network(nn.Module):
    def __init__(self, packed, filters, window):
        super().__init__()
        self.packed = packed
        self.register_buffer("filters", torch.tensor(filters))
        self.register_buffer("window", torch.tensor(window))
        self.conv_1 = nn.Conv2d(1, 32, (11, 41), (2, 2), (5, 20), bias=False)
        self.conv_2 = nn.Conv2d(32, 32, (11, 21), (1, 2), (5, 10), bias=False)
        self.norm_1 = nn.BatchNorm2d(32, eps=1e-3)
        self.norm_2 = nn.BatchNorm2d(32, eps=1e-3)
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(512, eps=1e-3) for _ in range(4)
        )
        self.rnns = nn.ModuleList(
            nn.LSTM(size, 512, batch_first=True)
            for size in (640, 512, 512, 512, 512)
        )
        for rnn in self.rnns:
            nn.init.zeros_(rnn.bias_hh_l0).requires_grad_(False)
        self.row_conv = nn.Conv1d(512, 512, 5, groups=512, bias=False)
        self.dense, self.logits = nn.Linear(512, 1024), nn.Linear(1024, 31)
        self.dropout = nn.Dropout(0.1)

    def log_mel(self, audio):
        frames = audio.unfold(1, 400, 160) * self.window
        spectrum = torch.fft.rfft(frames, 512)
        power = spectrum.real.square() + spectrum.imag.square()
        return (power @ self.filters).clamp_min(1e-10).log()

    def forward(self, audio, audio_length):
        with torch.autocast("cpu", enabled=False):
            x = self.log_mel(audio)
        num_frames = 1 + (audio_length - 400) // 160
        x = zero_padding(x, num_frames)[:, None]  # (batch, 1, frames, bins)
        x = self.norm_1(self.conv_1(x)).clamp(0, 20)
        num_frames = (num_frames + 1) // 2
        x = zero_padding(x.transpose(1, 2), num_frames).transpose(1, 2)
        x = self.norm_2(self.conv_2(x)).clamp(0, 20)
        x = x.permute(0, 2, 3, 1).flatten(2)  # (batch, frames, features)
        x = self.recurrent(x, num_frames)
        x = zero_padding(x, num_frames)
        x = self.row_conv(nn.functional.pad(x.transpose(1, 2), (0, 4)))
        x = self.dropout(self.dense(x.transpose(1, 2)).clamp(0, 20))
        return self.logits(x).float(), num_frames

    def recurrent(self, x, num_frames):
        if self.packed:
            x = pack_padded_sequence(
                x, num_frames, batch_first=True, enforce_sorted=False
            )
        for i, rnn in enumerate(self.rnns):
            if i:
                x = self.on_frames(self.norms[i - 1], x)
            x, _ = rnn(x)
            x = self.on_frames(self.dropout, x)
        return pad(x, batch_first=True)[0] if self.packed else x

    def on_frames(self, layer, x):
        if not self.packed:
            return layer(x.flatten(0, 1)).view_as(x)
        return PackedSequence(
            layer(x.data), x.batch_sizes, x.sorted_indices, x.unsorted_indices
        )


def zero_padding(x, num_frames):
    mask = torch.arange(x.shape[1]) < num_frames[:, None]
    return x * mask.view(*mask.shape, *[1] * (x.ndim - 2))


def copy_weights(network, ours):
    """Gives the network the weights of our model."""
    weights = {layer.name: layer.get_weights() for layer in ours.layers}

    def copy(parameter, value):
        parameter.data.copy_(torch.tensor(np.ascontiguousarray(value)))

    for name, conv, norm in (
        ("conv_1", network.conv_1, network.norm_1),
        ("conv_2", network.conv_2, network.norm_2),
        *((f"rnn_{i}", None, network.norms[i - 2]) for i in range(2, 6)),
    ):
        if conv is not None:
            copy(conv.weight, weights[name][0].transpose(3, 2, 0, 1))
        state = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        for tensor, value in zip(state, weights[name + "_norm"], strict=True):
            copy(tensor, value)
    for i, rnn in enumerate(network.rnns, 1):
        kernel, recurrent_kernel, bias = weights[f"rnn_{i}"]
        copy(rnn.weight_ih_l0, kernel.T)
        copy(rnn.weight_hh_l0, recurrent_kernel.T)
        copy(rnn.bias_ih_l0, bias)
    [kernel] = weights["row_conv"]
    copy(network.row_conv.weight, kernel.T[:, None])
    for name, dense in (("dense", network.dense), ("logits", network.logits)):
        copy(dense.weight, weights[name][0].T)
        copy(dense.bias, weights[name][1])
    # Ours can never emit the two reserved symbols.
    network.logits.weight.data[-2:] = 0.0
    network.logits.bias.data[-2:] = -1e4


def outputs_with(ours, batch):
    """Logits and loss of `batch` with the weights of our model."""
    features = ours.get_layer("log_mel")
    network = Network(False, features._filters, features._taper).eval()
    copy_weights(network, ours)
    tensors = {name: torch.tensor(value) for name, value in batch.items()}
    with torch.no_grad():
        logits, num_frames = network(
            tensors["audio"], tensors["audio_length"].long()
        )
        loss = ctc_loss(logits, num_frames, tensors)
    return logits.numpy(), loss.item()


def ctc_loss(logits, num_frames, tensors):
    return nn.functional.ctc_loss(
        logits.log_softmax(-1).transpose(0, 1),
        tensors["labels"],
        num_frames,
        tensors["label_length"],
        reduction="none",
    ).mean()


def make_step(batch, bfloat16, packed, threads):
    """Returns a function that trains one step, and the number of parameters."""
    import keras_ds2

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    features = keras_ds2.LogMelSpectrogram()
    model = Network(packed, features._filters, features._taper)
    model = model.to(memory_format=torch.channels_last).train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(weights, 1e-3, fused=True)
    tensors = {name: torch.tensor(value) for name, value in batch.items()}
    audio_length = tensors["audio_length"].long()

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits, num_frames = model(tensors["audio"], audio_length)
        loss = ctc_loss(logits, num_frames, tensors)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, sum(p.numel() for p in weights)
