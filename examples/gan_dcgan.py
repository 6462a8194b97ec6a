"""DCGAN (Radford et al., 2016) on handwritten digits: two engines in one script.

dtk launch --nproc 2 examples/gan_dcgan.py

Grids of samples are written as PNG to `samples` in the run directory.

`python examples/gan_dcgan.py` is the same program on one process. Started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
import torch.nn.functional as F
from shared import images
from shared.frechet import frechet_distance
from shared.grid import save_grid
from torch import nn
from torchvision import transforms

import dist_toolkit as dtk

NOISE, SIDE = 64, 16


class Generator(nn.Module):
    """From noise of shape (samples, NOISE) to images of shape (samples, channels, SIDE, SIDE), from -1 to 1."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(NOISE, 4 * width, 4, bias=False), nn.BatchNorm2d(4 * width), nn.ReLU(),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.ConvTranspose2d(2 * width, channels, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip
        self.apply(small_weights)

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        """Images of noise."""
        return self.layers(noise[:, :, None, None])


class Discriminator(nn.Module):
    """From images to one logit each, of shape (samples,)."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 2 * width, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(4 * width), nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 1, 4),
        )  # fmt: skip
        self.apply(small_weights)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits: above 0 for what it takes to be real."""
        return self.layers(image).flatten()


def small_weights(module: nn.Module) -> None:
    """As in the paper: normal with a standard deviation of 0.02."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--epochs", type=int, default=20, help="passes over the training data (default: %(default)s)")
    add("--global-batch-size", type=int, default=64, help="images of a step over all ranks (default: %(default)s)")
    add("--width", type=int, default=24, help="channels of the largest layers (default: %(default)s)")
    add("--lr", type=float, default=5e-4, help="of both players; Adam with betas 0.5 and 0.999 (default: %(default)s)")
    add("--seed", type=int, default=0, help="of weights, noise and data order (default: 0)")
    add("--save-every", type=int, default=100, metavar="N", help="steps between checkpoints (default: %(default)s)")
    add(
        "--grid-every", type=int, default=110, metavar="N", help="steps between grids of samples (default: %(default)s)"
    )
    add("--samples", type=int, default=512, metavar="N", help="images whose distance is told (default: %(default)s)")
    images.add_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    as_seen = transforms.Compose([transforms.Resize((SIDE, SIDE), antialias=True), transforms.Normalize(0.5, 0.5)])
    train_set, test_set = (images.Transformed(part, as_seen) for part in images.open_images(args))
    with dtk.init(seed=args.seed) as rt:
        channels = train_set[0][0].shape[0]
        loader = rt.loader(train_set, global_batch_size=args.global_batch_size)
        adam = partial(torch.optim.Adam, lr=args.lr, betas=(0.5, 0.999))
        generator = rt.setup(partial(Generator, args.width, channels), adam)
        discriminator = rt.setup(partial(Discriminator, args.width, channels), adam)
        engines = {"generator": generator, "discriminator": discriminator}
        ckpt = rt.checkpointer(engine=engines, loader=loader, every=args.save_every, keep_last=2)
        held_out = torch.stack([test_set[i][0] for i in range(min(args.samples, len(test_set)))])
        latents = torch.randn(args.samples, NOISE, generator=torch.Generator().manual_seed(args.seed))

        def look(step: int) -> float:
            """Write a grid of samples, always of the same noise; how far all samples are from held-out images."""
            with generator.evaluating():  # each rank makes its share
                mine = generator(latents[rt.world.rank :: rt.world.world_size].to(rt.device))
            made = rt.gather(mine).cpu()
            if rt.is_main:
                save_grid(made[:64], rt.run_dir / "samples" / f"step-{step:06d}.png")
            return frechet_distance(held_out, made)

        if ckpt.restore() is None:
            rt.print(f"before training: Fréchet distance {look(0):.2f}")
        for step, (real, _) in ckpt.steps(loader, epochs=args.epochs):
            # the discriminator: real images are real, made ones are not (cross-entropy, of logits)
            fake = generator(torch.randn(len(real), NOISE, device=rt.device))
            real_loss = F.softplus(-discriminator(real)).mean()
            discriminator.backward(real_loss)
            fake_loss = F.softplus(discriminator(fake.detach())).mean()
            discriminator.backward(fake_loss)
            discriminator.step()

            # the generator: what it makes is to be taken for real
            with discriminator.frozen():  # gradients flow through it, and it gets none
                loss = F.softplus(-discriminator(fake)).mean()
                generator.backward(loss)
            generator.step()

            rt.log(step, discriminator=real_loss + fake_loss, generator=loss)
            if step % args.grid_every == 0:
                rt.print(f"step {step} of {args.epochs * len(loader)}: Fréchet distance {look(step):.2f}")
        rt.print(f"Fréchet distance {look(ckpt.step):.2f} after {ckpt.step} steps")


if __name__ == "__main__":
    main()
