"""Run a training step as one CUDA graph: launch cost is most of a small model."""
import torch


class Step:
    """Call fn() now, and from the first call on as a captured graph.

    fn must read its inputs from tensors that stay where they are, must not
    wait for the device, and must set gradients to None before using them.
    """

    def __init__(self, fn, enabled, warm_up=4):
        self.fn, self.graph = fn, None
        if not enabled:
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(warm_up):
                fn()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            fn()

    def __call__(self):
        if self.graph is None:
            self.fn()
        else:
            self.graph.replay()


class Average:
    """Exponential moving average of parameters, refreshed every few steps."""

    def __init__(self, params, decay, every=5):
        self.params, self.every = list(params), every
        self.decay = decay ** every
        self.value = [p.detach().clone() for p in self.params]
        self.n = 0

    def update(self, step):
        if step % self.every:
            return
        self.n += 1
        k = min(self.decay, self.n / (self.n + 9))
        torch._foreach_lerp_(self.value, [p.detach() for p in self.params],
                             1 - k)

    def copy_to_params(self):
        with torch.no_grad():
            torch._foreach_copy_(self.params, self.value)


def adam(params, lr, betas, decay, device):
    """AdamW whose learning rate is a tensor, so that a graph can follow it."""
    if device == "cuda":
        return torch.optim.AdamW(params, torch.tensor(lr, device=device),
                                 betas=betas, weight_decay=decay, fused=True,
                                 capturable=True)
    return torch.optim.AdamW(params, lr, betas=betas, weight_decay=decay)


def set_lr(optimizer, lr):
    for g in optimizer.param_groups:
        if torch.is_tensor(g["lr"]):
            g["lr"].fill_(lr)
        else:
            g["lr"] = lr


def drop_grads(params):
    for p in params:
        p.grad = None
