"""A recipe small enough for tests."""


def tiny_recipe(kind="igconv", **changes):
    """A recipe that trains in a second, as the dictionary that YAML would give."""
    upsampler = {
        "igconv": {"name": "igconv", "scales": [2, 3], "latent": 8, "hidden_layers": 1},
        "liif": {"name": "liif", "hidden": [8, 8]},
    }[kind]
    scales = {"igconv": {"set": [2, 3]}, "liif": {"range": [1.0, 3.0]}}[kind]
    recipe = {
        "model": {
            "encoder": {"name": "edsr", "width": 8, "blocks": 1},
            "upsampler": upsampler,
            "normalisation": {"mean": [0.5, 0.5, 0.5], "std": 0.5},
        },
        "steps": 8,
        "scales": scales,
        "seed": 3,
        "batch": 2,
        "patch": 8,
        "queries": 50,
        "optimiser": {"lr": 1e-3, "warmup": 2},
        "ema": 0.9,
        "downscale": {"probability": 0.5, "smallest": 0.7},
        "validation": {"images": 1, "crop": 24, "every": 4},
        "checkpoint_every": 3,
    }
    return recipe | changes
