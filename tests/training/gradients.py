"""Script: gradients of the first batch of a recipe, from as many processes as asked for.

Arguments: recipe, images, folder for the result, number of processes.
"""

import sys
from pathlib import Path

import torch

from scaleport.training.cache import build_cache
from scaleport.training.devices import make_fabric
from scaleport.training.loop import Trainer
from scaleport.training.objective import located
from scaleport.training.recipe import load_recipe


def main():
    recipe, images, out = (Path(argument) for argument in sys.argv[1:4])
    fabric = make_fabric("cpu", int(sys.argv[4]), 1, "auto", False)
    with fabric.rank_zero_first():
        cache = build_cache(images, out)
    trainer = Trainer(load_recipe(recipe), cache, out, fabric)
    trainer.network.train()
    groups = next(trainer.batches(1))
    fabric.backward(trainer.objective([located(group) for group in groups]))
    if fabric.is_global_zero:
        named = trainer.network.named_parameters()
        torch.save({name: p.grad for name, p in named}, out / "gradients.pt")
    trainer.run(until=3)


if __name__ == "__main__":
    main()
