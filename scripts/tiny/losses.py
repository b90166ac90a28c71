"""Spectral losses and discriminators for the acoustic tokenizer."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

RATE = 24000
SIZES = (2048, 1024, 512, 256, 128)
MELS = {2048: 128, 1024: 80, 512: 64, 256: 32}
_window, _bank = {}, {}


def stft(x, n):
    key = n, x.device
    if key not in _window:
        _window[key] = torch.hann_window(n, device=x.device)
    return torch.stft(x, n, n // 4, n, _window[key], center=True,
                      pad_mode="constant", return_complex=True)


def magnitude(x, n):
    s = stft(x, n)
    return torch.sqrt(s.real ** 2 + s.imag ** 2 + 1e-9)


def mel_bank(n, bands, device, top_hz=RATE / 2):
    """[bands', n/2+1] triangular filters, empty ones dropped, rows sum to 1."""
    key = n, bands, device, top_hz
    if key not in _bank:
        top = 2595 * math.log10(1 + top_hz / 700)
        edge = 700 * (10 ** (torch.linspace(0, top, bands + 2,
                                            dtype=torch.float64) / 2595) - 1)
        f = torch.arange(n // 2 + 1, dtype=torch.float64) * RATE / n
        lo, mid, hi = (e[:, None] for e in (edge[:-2], edge[1:-1], edge[2:]))
        w = torch.minimum((f - lo) / (mid - lo), (hi - f) / (hi - mid))
        w = w.clamp(min=0)
        w = w[w.sum(1) > 0]
        _bank[key] = (w / w.sum(1, keepdim=True)).float().to(device)
    return _bank[key]


def log_mel(x, n=1024, bands=80):
    return torch.log(mel_bank(n, bands, x.device) @ magnitude(x, n) + 3e-3)


def cepstra(x, n=1536, bands=40, count=24):
    """Mel cepstra c1..c24, [B, 24, T], of 64 ms windows up to 7 kHz.

    Windows so long and bands so wide leave what can be predicted of speech,
    its envelope; the floor is near the rounding noise of 16-bit samples.
    """
    s = stft(x, n)
    power = mel_bank(n, bands, x.device, 7000.0) @ (s.real ** 2 + s.imag ** 2)
    log = 0.5 * torch.log(power + 1e-7)
    key = "cosines", bands, count, x.device
    if key not in _bank:
        k = torch.arange(1, count + 1)[:, None]
        angle = k * (torch.arange(bands) + 0.5) * math.pi / bands
        _bank[key] = (2 / bands * torch.cos(angle)).to(x.device)
    return _bank[key] @ log


def cepstral(x, y):
    """Mean mel-cepstral distance in nepers (x 4.34 = the usual dB)."""
    d = (cepstra(x) - cepstra(y)).pow(2).sum(1)
    return torch.sqrt(2 * d + 1e-6).mean()


def nearest(a, b, reach):
    """Mean distance of every column of a from those of b near its place.

    The nearest counts most, and its own place a little more than others.
    """
    T, found = a.shape[-1], []
    for k in range(-reach, reach + 1):
        lo, hi = max(0, -k), min(T, T - k)
        d = (a[..., lo:hi] - b[..., lo + k:hi + k]).pow(2).sum(1)
        found.append(F.pad(torch.sqrt(2 * d + 1e-6), (lo, T - hi), value=9.0))
    d = torch.stack(found)
    place = torch.arange(-reach, reach + 1, device=d.device).abs()
    with torch.no_grad():
        share = torch.softmax(-(d + 0.02 * place[:, None, None]) / 0.05, 0)
    return (share * d).sum(0).mean()


def warped(x, y, reach=4):
    """As cepstral(), of columns at most `reach` x 16 ms apart.

    Speech that says each sound a little sooner or later is not further away.
    """
    a, b = cepstra(x), cepstra(y)
    return (nearest(a, b, reach) + nearest(b, a, reach)) / 2


def reconstruction(x, y, sizes=SIZES):
    """(spectral convergence, log magnitude, log mel, wave) distances."""
    conv = log_mag = mel = 0.0
    mels = len(MELS.keys() & set(sizes))
    for n in sizes:
        X, Y = magnitude(x, n), magnitude(y, n)
        err = torch.linalg.vector_norm((X - Y).flatten(1), dim=1)
        ref = torch.linalg.vector_norm(X.flatten(1), dim=1)
        conv = conv + (err / (ref + 1.0)).mean() / len(sizes)
        log_mag = log_mag + F.l1_loss(torch.log(Y + 1e-2),
                                      torch.log(X + 1e-2)) / len(sizes)
        if n in MELS:
            bank = mel_bank(n, MELS[n], x.device)
            mel = mel + F.l1_loss(torch.log(bank @ Y + 3e-3),
                                  torch.log(bank @ X + 3e-3)) / mels
    return conv, log_mag, mel, F.l1_loss(y, x)


class Period(nn.Module):
    """Judges samples that lie `period` apart."""

    def __init__(self, period, widths=(1, 16, 32, 64, 128)):
        super().__init__()
        self.period = period
        self.layers = nn.ModuleList(
            [nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0))
             for a, b in zip(widths, widths[1:])]
            + [nn.Conv2d(widths[-1], widths[-1], (5, 1), 1, (2, 0))])
        self.out = nn.Conv2d(widths[-1], 1, (3, 1), 1, (1, 0))

    def forward(self, x):
        x = F.pad(x, (0, -x.shape[-1] % self.period)) * 5
        x = x.view(x.shape[0], 1, -1, self.period)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            features.append(x)
        return self.out(x), features


class Spectrum(nn.Module):
    """Judges the power-law compressed complex spectrum."""

    def __init__(self, n, width=16):
        super().__init__()
        self.n = n
        self.layers = nn.ModuleList(
            [nn.Conv2d(2 if i == 0 else width, width, (9, 3), (2, 1), (4, 1))
             for i in range(4)] + [nn.Conv2d(width, width, 3, 1, 1)])
        self.out = nn.Conv2d(width, 1, 3, 1, 1)

    def forward(self, x):
        with torch.autocast(x.device.type, enabled=False):
            s = stft(x.float(), self.n)
            mag = torch.sqrt(s.real ** 2 + s.imag ** 2 + 1e-9)
            gain = (mag + 1e-3) ** -0.6
            x = torch.stack([s.real * gain, s.imag * gain], 1)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            features.append(x)
        return self.out(x), features


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList([Period(p) for p in (2, 3, 5, 7, 11)]
                                   + [Spectrum(n) for n in (1024, 512, 256)])

    def forward(self, x):
        return [part(x) for part in self.parts]


def hinge(real, fake):
    return sum(F.relu(1 - r[0].float()).mean() + F.relu(1 + f[0].float()).mean()
               for r, f in zip(real, fake)) / len(real)


def adversarial(fake):
    return -sum(f[0].float().mean() for f in fake) / len(fake)


def feature_matching(real, fake):
    terms = [F.l1_loss(f, r) / (r.abs().mean() + 1e-4)
             for R, Q in zip(real, fake) for r, f in zip(R[1], Q[1])]
    return sum(terms).float() / len(terms)
