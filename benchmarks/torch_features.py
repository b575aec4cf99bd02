"""The PyTorch side of features.py: a network of timm with seeded weights, channels last, in the forms that are asked
for, in a process of its own."""

import json
import os
import sys
import time

import numpy as np
import timm
import torch
from safetensors.torch import save_file


def seeded(name):
    """A network without its classifier; its normalisations are no identities."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0).eval()
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            for numbers in (part.weight, part.running_var):
                torch.nn.init.uniform_(numbers, 0.5, 1.5)
            for numbers in (part.bias, part.running_mean):
                torch.nn.init.normal_(numbers, 0, 0.1)
    return model


def frozen(model, images):
    return torch.jit.freeze(torch.jit.trace(model, images))


def compiled(model, images):
    torch._inductor.config.freezing = True  # folds batch normalisation
    return torch.compile(model)


FORMS = {
    "eager": lambda model, images: model,
    "frozen": frozen,
    "compiled": compiled,
}
WARM = 3  # calls before any is timed


class Features:
    """A network's forms and its images."""

    def __init__(self, name, images, forms):
        pixels = torch.from_numpy(np.load(images)).permute(0, 3, 1, 2)
        self.programs = {}
        self.pixels = pixels.contiguous(memory_format=torch.channels_last)
        for form in forms:
            self.programs[form] = FORMS[form](seeded(name).to(memory_format=torch.channels_last), self.pixels)

    @torch.no_grad()
    def __call__(self, form):
        return self.programs[form](self.pixels)


def main():
    """Answers requests, a JSON object a line."""
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    print(json.dumps({"version": torch.__version__, "threads": threads}), file=answers, flush=True)
    features = None
    for line in sys.stdin:
        request, answer = json.loads(line), {}
        if request["do"] == "weights":
            state = seeded(request["name"]).state_dict()
            save_file({name: array for name, array in state.items() if array.ndim}, request["path"])
        elif request["do"] == "make":
            with torch.no_grad():
                features = Features(request["name"], request["images"], request["forms"])
            for form in request["forms"]:
                np.save(request["features"].format(request["forms"].index(form)), features(form).numpy())
                for _ in range(WARM - 1):
                    features(form)
        else:
            began = time.perf_counter()
            for _ in range(request["calls"]):
                features(request["form"])
            answer = {"seconds": (time.perf_counter() - began) / request["calls"]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
