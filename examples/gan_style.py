"""A small StyleGAN2 (Karras et al., 2020) on handwritten digits: style mixing, gradient penalty, averaged generator.

dtk launch --nproc 2 examples/gan_style.py

Grids of samples are written as PNG to `samples` in the run directory.
`python examples/gan_style.py` is the same program on one process. Started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
import torch.nn.functional as F
from shared import images
from shared.frechet import frechet_distance
from shared.grid import save_grid
from shared.stylegan import STYLE, Discriminator, Generator
from torchvision import transforms

import dist_toolkit as dtk


def styles(count: int, mixing: float, layers: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Two random styles for each sample, and the layer from which on it has the second: `layers` of those with one."""
    first, second = torch.randn(2, count, STYLE, device=device)
    crossover = torch.randint(1, layers, (count,), device=device)
    has_one = torch.rand(count, device=device) >= mixing
    return first, second, crossover.masked_fill(has_one, layers)


def real_loss_and_penalty(
    discriminator: dtk.Engine, real: torch.Tensor, near: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of real images, and half the squared norm of the logit's gradient there (R1, Mescheder et al., 2018).

    The gradient is taken by the difference to images with noise of size `near`: the expected square of that difference
    is its squared norm. fsdp and deepspeed stage 3 could not differentiate a gradient of autograd's once more.
    """
    of_real, of_near = discriminator(torch.cat([real, real + near * torch.randn_like(real)])).chunk(2)
    slope = (of_near - of_real) / near
    return F.softplus(-of_real).mean(), 0.5 * slope.square().mean()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--epochs", type=int, default=10, help="passes over the training data (default: %(default)s)")
    add("--global-batch-size", type=int, default=32, help="images of a step over all ranks (default: %(default)s)")
    add("--side", type=int, default=16, help="of the images: 4 times a power of 2 (default: %(default)s)")
    add("--width", type=int, default=24, help="channels (default: %(default)s)")
    add("--lr", type=float, default=2e-3, help="of both players; Adam with betas 0 and 0.99 (default: %(default)s)")
    add("--mixing", type=float, default=0.9, help="share of samples with two styles (default: %(default)s)")
    add("--penalty", type=float, default=0.2, help="weight of the gradient penalty (default: %(default)s)")
    add("--near", type=float, default=0.1, help="size of the noise that it is measured with (default: %(default)s)")
    add("--decay", type=float, default=0.99, help="of the averaged generator, which is shown (default: %(default)s)")
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
    as_seen = transforms.Compose(
        [transforms.Resize((args.side, args.side), antialias=True), transforms.Normalize(0.5, 0.5)]
    )
    train_set, test_set = (images.Transformed(part, as_seen) for part in images.open_images(args))
    with dtk.init(seed=args.seed) as rt:
        channels = train_set[0][0].shape[0]
        loader = rt.loader(train_set, global_batch_size=args.global_batch_size)
        adam = partial(torch.optim.Adam, lr=args.lr, betas=(0.0, 0.99))
        generator = rt.setup(partial(Generator, args.side, args.width, channels), adam, ema=dtk.EMA(args.decay))
        discriminator = rt.setup(partial(Discriminator, args.side, args.width, channels), adam)
        engines = {"generator": generator, "discriminator": discriminator}
        ckpt = rt.checkpointer(engine=engines, loader=loader, every=args.save_every, keep_last=2)
        layers = len(generator.module.layers)
        held_out = torch.stack([test_set[i][0] for i in range(min(args.samples, len(test_set)))])
        latents = torch.randn(args.samples, STYLE, generator=torch.Generator().manual_seed(args.seed))

        def look(step: int) -> float:
            """Write a grid of samples, always of the same styles; how far all samples are from held-out images."""
            mine = latents[rt.world.rank :: rt.world.world_size].to(rt.device)  # each rank makes its share
            with generator.averaged(), generator.evaluating():
                made = rt.gather(generator(mine, mine, torch.full((len(mine),), layers, device=rt.device))).cpu()
            if rt.is_main:
                save_grid(made[:64], rt.run_dir / "samples" / f"step-{step:06d}.png")
            return frechet_distance(held_out, made)

        if ckpt.restore() is None:
            rt.print(f"before training: Fréchet distance {look(0):.2f}")
        for step, (real, _) in ckpt.steps(loader, epochs=args.epochs):
            # the discriminator: real images are real, made ones are not (cross-entropy, of logits)
            fake = generator(*styles(len(real), args.mixing, layers, rt.device))
            real_loss, penalty = real_loss_and_penalty(discriminator, real, args.near)
            discriminator.backward(real_loss + args.penalty * penalty)
            fake_loss = F.softplus(discriminator(fake.detach())).mean()
            discriminator.backward(fake_loss)
            discriminator.step()

            # the generator: what it makes is to be taken for real
            with discriminator.frozen():
                loss = F.softplus(-discriminator(fake)).mean()
                generator.backward(loss)
            generator.step()

            rt.log(step, discriminator=real_loss + fake_loss, generator=loss, penalty=penalty)
            if step % args.grid_every == 0:
                rt.print(f"step {step} of {args.epochs * len(loader)}: Fréchet distance {look(step):.2f}")
        rt.print(f"Fréchet distance {look(ckpt.step):.2f} after {ckpt.step} steps")


if __name__ == "__main__":
    main()
