"""The PyTorch side of features.py: EfficientNet-Lite0's features, channels last, in a process of its own."""

import json
import os
import sys
import time

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet


class Features:
    """The network and its images."""

    def __init__(self, images, weights):
        model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
        self.model = model.to(memory_format=torch.channels_last)
        pixels = torch.from_numpy(np.load(images)).permute(0, 3, 1, 2)
        self.pixels = pixels.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self):
        return self.model.extract_features(self.pixels).mean((2, 3))


def main():
    """Answers requests, a JSON object a line."""
    answers, sys.stdout = sys.stdout, sys.stderr  # the package prints
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    print(json.dumps({"version": torch.__version__, "threads": threads}), file=answers, flush=True)
    features = None
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "make":
            features = Features(request["images"], request["weights"])
            np.save(request["features"], features().numpy())
            answer = {}
        else:
            began = time.perf_counter()
            for _ in range(request["calls"]):
                features()
            answer = {"seconds": (time.perf_counter() - began) / request["calls"]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
