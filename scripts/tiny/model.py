"""The VibeVoice architecture at any size, with the checkpoint's own names.

Module attributes are nested so that state_dict() keys are the names that a
released checkpoint uses; export.py writes them as they are.  Everything is
causal.  Tokenizer tensors are [batch, channels, time]; the language model's
are [batch, time, hidden].

Passing a dict as `state` makes the convolutions streaming: each one keeps the
tail of its input there, and an empty dict is a stream that begins in silence.
"""
import json
import math
import os

import torch
import torch.nn as nn
import torch.nn.functional as F

RATE = 24000
HOP = 3200
KERNEL = 7


def load_config(path):
    with open(path) as f:
        return json.load(f)


# ---------------------------------------------------------------- tokenizers

class Depthwise(torch.autograd.Function):
    """conv1d(x, w, groups=C) with a fast weight gradient for long inputs.

    The library's own gradient of a depthwise kernel is several times slower
    than seven shifted products when T is in the ten thousands.
    """

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return F.conv1d(x, w, groups=w.shape[0])

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        k, T = w.shape[-1], dy.shape[-1]
        dy = dy.contiguous()
        dx = F.conv1d(F.pad(dy, (k - 1, k - 1)), w.flip(-1),
                      groups=w.shape[0])
        dw = torch.stack([(dy * x[:, :, i:i + T]).sum(
            (0, 2), dtype=torch.float32) for i in range(k)], 1)
        return dx, dw[:, None].to(w.dtype)


def with_history(module, x, width, state):
    """x with its last `width` predecessors (zeros at the start) in front."""
    if state is None:
        return F.pad(x, (width, 0))
    past = state.get(module)
    if past is None:
        past = x.new_zeros(x.shape[0], x.shape[1], width)
    x = torch.cat([past, x], -1)
    state[module] = x[..., x.shape[-1] - width:]
    return x


class ChannelNorm(nn.Module):
    """RMSNorm over channels of [B, C, T]."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x):
        r = torch.rsqrt((x * x).mean(1, keepdim=True, dtype=torch.float32)
                        + 1e-5)
        return x * r.to(x.dtype) * self.weight.to(x.dtype)[:, None]


class Wrap(nn.Module):
    """A level of the checkpoint's name nesting."""

    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)


class Conv(nn.Module):
    """Causal strided convolution: context k - s on the left."""

    def __init__(self, cin, cout, k, stride=1):
        super().__init__()
        self.conv = Wrap(conv=nn.Conv1d(cin, cout, k, stride))
        self.context = k - stride

    def forward(self, x, state=None):
        c = self.conv.conv
        x = with_history(self, x, self.context, state)
        return F.conv1d(x, c.weight.to(x.dtype), c.bias.to(x.dtype), c.stride)


class ConvTranspose(nn.Module):
    """Causal transposed convolution, k = 2 s, trimmed by s on the right."""

    def __init__(self, cin, cout, stride):
        super().__init__()
        self.convtr = Wrap(convtr=nn.ConvTranspose1d(cin, cout, 2 * stride,
                                                     stride))
        self.stride = stride

    def forward(self, x, state=None):
        c, n, dtype = self.convtr.convtr, x.shape[-1], x.dtype
        x = with_history(self, x, 1, state) if state is not None else x
        if not x.is_cuda:
            x = x.float()
        y = F.conv_transpose1d(x, c.weight.to(x.dtype), c.bias.to(x.dtype),
                               self.stride)
        y = y[..., :x.shape[-1] * self.stride]
        return y[..., y.shape[-1] - n * self.stride:].to(dtype)


class Mixer(nn.Module):
    """Depthwise causal convolution over time."""

    def __init__(self, c):
        super().__init__()
        self.conv = Wrap(conv=Wrap(conv=nn.Conv1d(c, c, KERNEL, groups=c)))

    def forward(self, x, state=None):
        c = self.conv.conv.conv
        x = with_history(self, x, KERNEL - 1, state)
        return (Depthwise.apply(x, c.weight.to(x.dtype))
                + c.bias.to(x.dtype)[:, None])


class Block(nn.Module):
    """x += gamma * mix(norm(x)); x += ffn_gamma * ffn(norm(x))."""

    def __init__(self, c):
        super().__init__()
        self.norm = ChannelNorm(c)
        self.mixer = Mixer(c)
        self.gamma = nn.Parameter(torch.full((c,), 0.5))
        self.ffn_norm = ChannelNorm(c)
        self.ffn = Wrap(linear1=nn.Linear(c, 4 * c), linear2=nn.Linear(4 * c, c))
        self.ffn_gamma = nn.Parameter(torch.full((c,), 0.5))

    @staticmethod
    def linear(layer, x):
        w, b = layer.weight.to(x.dtype), layer.bias.to(x.dtype)
        return torch.baddbmm(b[None, :, None],
                             w.expand(x.shape[0], -1, -1), x)

    def forward(self, x, state=None):
        x = x + self.gamma.to(x.dtype)[:, None] * self.mixer(self.norm(x),
                                                             state)
        h = F.gelu(self.linear(self.ffn.linear1, self.ffn_norm(x)))
        return x + self.ffn_gamma.to(x.dtype)[:, None] * self.linear(
            self.ffn.linear2, h)


def depths_of(text):
    return [int(d) for d in text.split("-")]


class Encoder(nn.Module):
    """[B, 1, 3200 n] samples to [B, vae_dim, n]."""

    def __init__(self, cfg):
        super().__init__()
        n, ratios = cfg["encoder_n_filters"], cfg["encoder_ratios"][::-1]
        depths = depths_of(cfg["encoder_depths"])
        down = [nn.Sequential(Conv(1, n, KERNEL))]
        down += [nn.Sequential(Conv(n << i, n << (i + 1), 2 * r, r))
                 for i, r in enumerate(ratios)]
        self.downsample_layers = nn.ModuleList(down)
        self.stages = nn.ModuleList(
            nn.ModuleList(Block(n << i) for _ in range(d))
            for i, d in enumerate(depths))
        self.head = Conv(n << len(ratios), cfg["vae_dim"], KERNEL)

    def forward(self, x, state=None):
        for (down,), stage in zip(self.downsample_layers, self.stages):
            x = down(x, state)
            for block in stage:
                x = block(x, state)
        return self.head(x, state)


class Decoder(nn.Module):
    """[B, vae_dim, n] latents to [B, 1, 3200 n] samples.

    The last two stages run in float32 whatever comes in: bf16 there puts noise
    43 dB below the speech, which training would hear and the program has not.
    """

    FINE = 2

    def __init__(self, cfg):
        super().__init__()
        n, ratios = cfg["decoder_n_filters"], cfg["decoder_ratios"]
        depths = (depths_of(cfg["decoder_depths"]) if cfg["decoder_depths"]
                  else depths_of(cfg["encoder_depths"])[::-1])
        top = len(ratios)
        up = [nn.Sequential(Conv(cfg["vae_dim"], n << top, KERNEL))]
        up += [nn.Sequential(ConvTranspose(n << (top - i),
                                           n << (top - i - 1), r))
               for i, r in enumerate(ratios)]
        self.upsample_layers = nn.ModuleList(up)
        self.stages = nn.ModuleList(
            nn.ModuleList(Block(n << (top - i)) for _ in range(d))
            for i, d in enumerate(depths))
        self.head = Conv(n, 1, KERNEL)

    def forward(self, x, state=None):
        fine = len(self.stages) - self.FINE
        for i, ((up,), stage) in enumerate(zip(self.upsample_layers,
                                               self.stages)):
            x = up(x.float() if i >= fine else x, state)
            for block in stage:
                x = block(x, state)
        return self.head(x, state)


# ------------------------------------------------------------ language model

def rms_norm(x, weight, eps):
    y = x.float()
    y = (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)
    return y if weight is None else y * weight.to(x.dtype)


class Norm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        return rms_norm(x, self.weight, self.eps)


def rotate(x, cos, sin):
    """Half-split rotary embedding of [B, heads, T, head_dim]."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Attention(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        h = cfg["hidden_size"]
        self.heads = cfg["num_attention_heads"]
        self.kv_heads = cfg["num_key_value_heads"]
        self.dim = h // self.heads
        self.q_proj = nn.Linear(h, h)
        self.k_proj = nn.Linear(h, self.kv_heads * self.dim)
        self.v_proj = nn.Linear(h, self.kv_heads * self.dim)
        self.o_proj = nn.Linear(h, h, bias=False)

    def forward(self, x, rope, mask, cache=None):
        """mask: [B, 1, T, S] boolean, True where attention is allowed.

        Returns the output and the unscaled (q, k), which the trainer uses to
        teach where to look.
        """
        B, T, _ = x.shape
        q = self.q_proj(x).view(B, T, self.heads, self.dim).transpose(1, 2)
        k = self.k_proj(x).view(B, T, self.kv_heads, self.dim).transpose(1, 2)
        v = self.v_proj(x).view(B, T, self.kv_heads, self.dim).transpose(1, 2)
        q, k = rotate(q, *rope).to(v.dtype), rotate(k, *rope).to(v.dtype)
        if cache is not None:
            if self in cache:
                k = torch.cat([cache[self][0], k], 2)
                v = torch.cat([cache[self][1], v], 2)
            cache[self] = (k, v)
        group = self.heads // self.kv_heads
        y = F.scaled_dot_product_attention(
            q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1),
            attn_mask=mask)
        y = y.transpose(1, 2).reshape(B, T, -1)
        return self.o_proj(y), (q, k)


class Mlp(nn.Module):
    def __init__(self, hidden, inner):
        super().__init__()
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        h, eps = cfg["hidden_size"], cfg["rms_norm_eps"]
        self.input_layernorm = Norm(h, eps)
        self.self_attn = Attention(cfg)
        self.post_attention_layernorm = Norm(h, eps)
        self.mlp = Mlp(h, cfg["intermediate_size"])

    def forward(self, x, rope, mask, cache=None):
        y, qk = self.self_attn(self.input_layernorm(x), rope, mask, cache)
        x = x + y
        return x + self.mlp(self.post_attention_layernorm(x)), qk


class LanguageModel(nn.Module):
    """Qwen2 over embeddings; returns the normalised hidden states."""

    def __init__(self, cfg):
        super().__init__()
        h = cfg["hidden_size"]
        self.embed_tokens = nn.Embedding(cfg["vocab_size"], h)
        self.layers = nn.ModuleList(Layer(cfg) for _ in
                                    range(cfg["num_hidden_layers"]))
        self.norm = Norm(h, cfg["rms_norm_eps"])
        self.head_dim = h // cfg["num_attention_heads"]
        self.theta = cfg["rope_theta"]

    def rope(self, pos, dtype):
        """cos and sin [B, 1, T, head_dim/2] of integer positions [B, T]."""
        i = torch.arange(0, self.head_dim, 2, device=pos.device)
        f = self.theta ** (-i.float() / self.head_dim)
        a = pos[:, None, :, None].float() * f
        return a.cos().to(dtype), a.sin().to(dtype)

    def forward(self, x, pos, mask, cache=None, taught=()):
        """taught: layers whose (q, k) are returned."""
        rope, out = self.rope(pos, x.dtype), []
        for i, layer in enumerate(self.layers):
            x, qk = layer(x, rope, mask, cache)
            if i in taught:
                out.append(qk)
        return self.norm(x), out


class Connector(nn.Module):
    def __init__(self, cin, hidden):
        super().__init__()
        self.fc1 = nn.Linear(cin, hidden)
        self.norm = Norm(hidden, 1e-6)
        self.fc2 = nn.Linear(hidden, hidden)

    def forward(self, x):
        return self.fc2(self.norm(self.fc1(x)))


# ------------------------------------------------------------ diffusion head

class AdaLN(nn.Module):
    def __init__(self, hidden, outputs):
        super().__init__()
        self.adaLN_modulation = nn.Sequential(
            nn.SiLU(), nn.Linear(hidden, outputs * hidden, bias=False))


class HeadLayer(AdaLN):
    def __init__(self, hidden, inner, eps):
        super().__init__(hidden, 3)
        self.norm = Norm(hidden, eps)
        self.ffn = Mlp(hidden, inner)

    def forward(self, u, c):
        shift, scale, gate = self.adaLN_modulation(c).chunk(3, -1)
        return u + gate * self.ffn(self.norm(u) * (1 + scale) + shift)


class FinalLayer(AdaLN):
    def __init__(self, hidden, latent, eps):
        super().__init__(hidden, 2)
        self.linear = nn.Linear(hidden, latent, bias=False)
        self.eps = eps

    def forward(self, u, c):
        shift, scale = self.adaLN_modulation(c).chunk(2, -1)
        return self.linear(rms_norm(u, None, self.eps) * (1 + scale) + shift)


class DiffusionHead(nn.Module):
    """Predict v from a noisy latent [N, latent], t [N] and h [N, hidden]."""

    def __init__(self, cfg):
        super().__init__()
        h, eps = cfg["hidden_size"], cfg["rms_norm_eps"]
        inner = int(h * cfg["head_ffn_ratio"])
        self.noisy_images_proj = nn.Linear(cfg["latent_size"], h, bias=False)
        self.cond_proj = nn.Linear(h, h, bias=False)
        self.t_embedder = Wrap(mlp=nn.Sequential(
            nn.Linear(256, h, bias=False), nn.SiLU(),
            nn.Linear(h, h, bias=False)))
        self.layers = nn.ModuleList(HeadLayer(h, inner, eps) for _ in
                                    range(cfg["head_layers"]))
        self.final_layer = FinalLayer(h, cfg["latent_size"], eps)

    def forward(self, x, t, cond):
        """t arrives as integers and is rounded to bf16, as in the reference."""
        t = t.to(torch.bfloat16).float()
        f = torch.exp(torch.arange(128, device=t.device)
                      * (-math.log(10000) / 128))
        a = t[:, None] * f
        e = torch.cat([a.cos(), a.sin()], -1).to(x.dtype)
        u, c = self.noisy_images_proj(x), self.cond_proj(cond)
        c = c + self.t_embedder.mlp(e)
        for layer in self.layers:
            u = layer(u, c)
        return self.final_layer(u, c)


# ------------------------------------------------------------------ schedule

def alpha_bars(steps=1000):
    """Products A_i of the cosine schedule, float64 over float32 betas."""
    def bar(u):
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = torch.tensor([min(1 - bar((i + 1) / steps) / bar(i / steps), 0.999)
                         for i in range(steps)], dtype=torch.float32)
    return torch.cumprod((1 - beta).double(), 0).float()


def solve(velocity, x, n):
    """DPM-Solver++ (2M) from noise x in n steps; velocity(x, t) predicts v."""
    A = alpha_bars()
    sigma = ((1 - A) / A).sqrt().double()
    ts = [round(999 * i / n) for i in range(n, 0, -1)]   # half to even
    sig = [sigma[t].item() for t in ts] + [0.0]
    prev = lam_prev = None
    for i, t in enumerate(ts):
        a = 1 / math.sqrt(sig[i] ** 2 + 1)
        s = sig[i] * a
        m0 = a * x - s * velocity(x, t)
        if i == n - 1:
            return m0
        lam = math.log(a) - math.log(s)
        a1 = 1 / math.sqrt(sig[i + 1] ** 2 + 1)
        s1 = sig[i + 1] * a1
        h = math.log(a1) - math.log(s1) - lam
        B = -a1 * math.expm1(-h)
        x1 = s1 / s * x + B * m0
        if prev is not None:
            x1 = x1 + 0.5 * B * (m0 - prev) * (h / (lam - lam_prev))
        x, prev, lam_prev = x1, m0, lam
    return x


# --------------------------------------------------------------------- whole

class Model(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        lm, ac = cfg["decoder_config"], cfg["acoustic_tokenizer_config"]
        se = cfg["semantic_tokenizer_config"]
        self.language_model = LanguageModel(lm)
        self.acoustic_tokenizer = Wrap(encoder=Encoder(ac),
                                       decoder=Decoder(ac))
        self.semantic_tokenizer = Wrap(encoder=Encoder(se))
        self.acoustic_connector = Connector(ac["vae_dim"], lm["hidden_size"])
        self.semantic_connector = Connector(se["vae_dim"], lm["hidden_size"])
        self.prediction_head = DiffusionHead(cfg["diffusion_head_config"])
        self.speech_scaling_factor = nn.Parameter(torch.tensor(1.0))
        self.speech_bias_factor = nn.Parameter(torch.tensor(0.0))


class VibeVoice(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.model = Model(cfg)


HERE = os.path.dirname(os.path.abspath(__file__))


def new_model(seed=0):
    torch.manual_seed(seed)
    return VibeVoice(load_config(os.path.join(HERE, "config.json")))


def n_params(module):
    return sum(p.numel() for p in module.parameters())
