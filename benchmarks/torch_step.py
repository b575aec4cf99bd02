"""The PyTorch side of step_time.py: an eager training step of the same method, in a process of its own.

Started by step_time.py under a Python that has torch and NumPy (ncl_jax and JAX are not needed). It reads one JSON
object a line on standard input, answers one a line on standard output, and sleeps in between:

    {"do": "make", "name", "spec": {...}, "weights": PATH, "batches": PATH}  builds a step, writes its initial weights
    {"do": "check", "name", "steps"}  -> {"losses": [...]} of the first steps
    {"do": "time", "name", "steps"}   -> {"seconds"} a step, mean over the steps

The step follows the papers and the losses of the authors' program as docs/fidelity.md states them: E separate ResNets
(torch_networks.py), hard categories from expert 0, the other classes' balanced logits 0 in the partial view,
momentum contrast as intended, Nesterov SGD with coupled weight decay.
"""

import contextlib
import copy
import itertools
import json
import os
import resource
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch_networks import Backbone


class Experts(nn.Module):
    """E experts and, with `dim`, their projection heads and the momentum copies (`key_*`)."""

    def __init__(self, num_experts, large, depth, width, num_classes, dim):
        super().__init__()
        features = (8 if large else 4) * width
        self.backbone = nn.ModuleList([Backbone(large, depth, width) for _ in range(num_experts)])
        self.classifier = nn.ModuleList([nn.Linear(features, num_classes) for _ in range(num_experts)])
        if dim:
            layers = lambda: (nn.Linear(features, features), nn.ReLU(), nn.Linear(features, dim))  # noqa: E731
            self.projection = nn.ModuleList([nn.Sequential(*layers()) for _ in range(num_experts)])
            self.key_backbone = copy.deepcopy(self.backbone).requires_grad_(False)
            self.key_projection = copy.deepcopy(self.projection).requires_grad_(False)

    def forward(self, images):
        """Logits [E, B, C] and queries [E, B, dim] (None without self-supervision)."""
        features = [backbone(images) for backbone in self.backbone]
        logits = torch.stack([head(x) for head, x in zip(self.classifier, features, strict=True)])
        if not hasattr(self, "projection"):
            return logits, None
        return logits, torch.stack([head(x) for head, x in zip(self.projection, features, strict=True)])

    @torch.no_grad()
    def keys(self, images):
        """Normalised keys [E, B, dim]."""
        pairs = zip(self.key_backbone, self.key_projection, strict=True)
        return F.normalize(torch.stack([head(backbone(images)) for backbone, head in pairs]).float(), dim=-1)


def hard_mask(scores, labels, num_hard):
    """bool [B, C]: the target and the `num_hard - 1` other classes with the highest scores."""
    chosen = scores.detach().scatter(1, labels[:, None], torch.inf).topk(num_hard).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, chosen, True)


def individual(balanced, hard, labels):
    """Cross-entropy over all classes and over the hard ones: mean over the batch, sum over experts."""
    num_experts, _, num_classes = balanced.shape
    views = torch.stack([balanced, torch.where(hard, balanced, 0.0)]).reshape(-1, num_classes)
    return 2 * num_experts * F.cross_entropy(views, labels.repeat(2 * num_experts))


def pair_kl(logits, mask=None):
    """Sum over ordered pairs of members [R, ..., C] of the KL divergence (of its `mask`ed terms), mean over rows."""
    log_p = F.log_softmax(logits, -1)
    terms = log_p.exp()[:, None] * (log_p[:, None] - log_p[None])
    if mask is not None:
        terms = terms * mask
    return terms.sum() / log_p[0, ..., 0].numel()


def ncl_loss(logits, labels, log_prior, spec):
    """NIL and NBOD; logits [E, B, C]."""
    balanced = logits + log_prior
    hard = hard_mask(logits[0], labels, spec["num_hard"])
    loss = individual(balanced, hard, labels)
    if len(logits) > 1:
        partial = torch.where(hard, balanced, 0.0)
        loss = loss + spec["distill"] / (len(logits) - 1) * (pair_kl(balanced) + pair_kl(partial))
    return loss


def nclpp_loss(logits, labels, log_prior, spec):
    """NCL++; logits [E, N * B, C], copy-major."""
    balanced = logits + log_prior
    hard = hard_mask(logits[0], labels, spec["num_hard"])
    num_experts, copies = len(logits), spec["copies"]
    by_copy = balanced.unflatten(1, (copies, -1)).swapaxes(0, 1)  # [N, E, B, C]
    inter = pair_kl(balanced) + pair_kl(balanced, hard)
    intra = num_experts * (pair_kl(by_copy) + pair_kl(by_copy, hard[: len(hard) // copies]))
    scale = lambda members: spec["distill"] * 2 / (members * max(members - 1, 1))  # noqa: E731
    return individual(balanced, hard, labels) + scale(num_experts) * inter + scale(copies) * intra


def contrast_loss(queries, keys, queue, temperature):
    """InfoNCE: mean over the batch, sum over experts; all normalised but the queries."""
    queries = F.normalize(queries.float(), dim=-1)
    positive = (queries * keys).sum(-1, keepdim=True)
    scores = torch.cat([positive, torch.einsum("ebd,eqd->ebq", queries, queue)], -1).flatten(0, 1) / temperature
    return len(keys) * F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long, device=scores.device))


class Step:
    """One training step with its weights, optimizer and queue."""

    def __init__(self, spec, form):
        torch.manual_seed(spec["seed"])
        self.spec, self.device = spec, spec["device"]
        dim = spec["dim"]
        model = Experts(spec["num_experts"], spec["large"], spec["depth"], spec["width"], spec["num_classes"], dim)
        self.layout = torch.channels_last if "channels_last" in form else torch.contiguous_format
        self.model = model.to(self.device, memory_format=self.layout)
        trained = [p for p in model.parameters() if p.requires_grad]
        rates = {"lr": spec["learning_rate"], "momentum": 0.9, "weight_decay": spec["weight_decay"]}
        self.optimizer = torch.optim.SGD(trained, nesterov=True, fused=True, **rates)
        self.log_prior = torch.tensor(spec["class_counts"], device=self.device).float().log()
        self.queue = F.normalize(torch.randn(spec["num_experts"], spec["queue"], max(dim, 1)), dim=-1).to(self.device)
        self.position = 0
        self.objective, self.keys = self._objective, self.model.keys
        if dim:
            self.query_weights = [*model.backbone.parameters(), *model.projection.parameters()]
            self.key_weights = [*model.key_backbone.parameters(), *model.key_projection.parameters()]
        if "compiled" in form:
            self.objective, self.keys = torch.compile(self._objective), torch.compile(self.model.keys)

    def _autocast(self):
        if self.spec["precision"] == "bfloat16":
            return torch.autocast(self.device, torch.bfloat16)
        return contextlib.nullcontext()

    def _objective(self, images, labels, keys, queue):
        with self._autocast():
            logits, queries = self.model(images)
        loss_fn = nclpp_loss if self.spec["copies"] > 1 else ncl_loss
        loss = loss_fn(logits.float(), labels, self.log_prior, self.spec)
        return loss if keys is None else loss + contrast_loss(queries, keys, queue, self.spec["temperature"])

    def __call__(self, images, labels, key_images):
        tf32 = self.spec["precision"] != "float32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        keys = None
        if self.spec["dim"]:
            with self._autocast():
                keys = self.keys(key_images)
        loss = self.objective(images, labels, keys, self.queue)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        if keys is not None:
            torch._foreach_lerp_(self.key_weights, [p.detach() for p in self.query_weights], 1 - self.spec["momentum"])
            rows = torch.arange(self.position, self.position + keys.shape[1], device=self.device) % self.queue.shape[1]
            self.queue[:, rows] = keys
            self.position = (self.position + keys.shape[1]) % self.queue.shape[1]
        return loss.detach()

    def place(self, batch):
        """NumPy images [B, H, W, 3], labels and key images on the device, in this step's layout."""
        images, labels, key_images = [torch.tensor(array, device=self.device) for array in batch]
        images, key_images = [x.permute(0, 3, 1, 2).contiguous(memory_format=self.layout) for x in (images, key_images)]
        return images, labels.long(), key_images

    def save(self, path):
        """Writes weights and queue."""
        tensors = self.model.state_dict() | {"queue": self.queue}
        np.savez(path, **{name: tensor.cpu().numpy() for name, tensor in tensors.items()})


def timed(step, batches, count):
    """Seconds a step, mean over `count` steps."""
    wait = torch.cuda.synchronize if step.device == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    for batch in itertools.islice(itertools.cycle(batches), count):
        step(*batch)
    wait()
    return (time.perf_counter() - began) / count


def choose(spec, arrays):
    """The fastest of the forms in `spec` (memory layout, compiled or not), with what each took."""
    seconds = {}
    for form in spec["forms"]:
        try:
            step = Step(spec, form)
            batches = [step.place(batch) for batch in arrays]
            timed(step, batches, 1)
            seconds[form] = min(timed(step, batches, spec["tune_steps"]) for _ in range(2))
        except Exception as error:
            if "compiled" not in form:
                raise
            print(f"torch.compile does not work here: {error}", file=sys.stderr)
    return min(seconds, key=seconds.get), seconds


def make(spec, weights, batches):
    """A fresh step in the fastest form: (step, its batches, what to answer)."""
    with np.load(batches) as file:
        arrays = list(zip(file["images"], file["labels"], file["key_images"], strict=True))
    chosen, seconds = choose(spec, arrays)
    step = Step(spec, chosen)
    step.save(weights)
    answer = {"chosen": chosen, "tuning_seconds": seconds, "torch": torch.__version__}
    return step, [step.place(batch) for batch in arrays], answer


def peak():
    """The most memory that this process has held, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main():
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else is printed must not mix with the answers
    torch.backends.cudnn.benchmark = True
    made = {}
    print(json.dumps({"cuda": torch.cuda.is_available(), "threads": torch.get_num_threads()}), file=answers)
    for line in sys.stdin:
        request, answer = json.loads(line), {}
        if request["do"] == "make":
            *made[request["name"]], answer = make(request["spec"], request["weights"], request["batches"])
        elif request["do"] == "check":
            step, batches = made[request["name"]]
            answer = {"losses": [step(*batch).item() for batch in batches[: request["steps"]]], "peak_bytes": peak()}
        else:
            answer = {"seconds": timed(*made[request["name"]], request["steps"])}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
