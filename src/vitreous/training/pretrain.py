"""Learning from pictures without labels: hide most patches, and fill them in from the rest.

He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners". The encoder is the whole
project's `ViT`; it sees the visible patches only. A small decoder, which nobody needs afterwards,
gets its tokens and has to tell the hidden patches' pixels. `PatchLearner` is what a step does;
the run around it is `trainer`'s, as for classes.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from vitreous.core.rng import torch_stream
from vitreous.data.loader import PictureSet
from vitreous.data.preprocess import normalise
from vitreous.data.transforms import augment
from vitreous.model import initialise
from vitreous.model.config import ModelConfig
from vitreous.model.layers import Block
from vitreous.model.patches import extract_patches, join_patches
from vitreous.model.positions import sincos2d
from vitreous.model.vit import ViT
from vitreous.training.config import PretrainConfig, RunConfig
from vitreous.training.encoder import Encoder, save_encoder, without_head, without_pooling
from vitreous.training.learner import Learner

_BATCH_SIZE = 64


class MaskedAutoencoder(nn.Module):
    """An encoder that sees some patches and a decoder that tells the others.

    Args:
        config: of the encoder; its head is left out, and so is all dropping, as in the paper
            (appendix A.1): hiding patches is noise enough.
        pretrain: of the decoder.

    Shape:
        (batch, channels, height, width), (batch, patches) -> (batch, patches, values)
    """

    def __init__(self, config: ModelConfig, pretrain: PretrainConfig) -> None:
        super().__init__()
        self.encoder = ViT(
            replace(
                config,
                num_classes=1,
                pool="mean",
                head_hidden=(),
                drop_path_rate=0.0,
                dropout=0.0,
                attention_dropout=0.0,
                patch_dropout=0.0,
            )
        )
        self.decoder = Decoder(self.encoder, pretrain)
        self.num_visible = pretrain.num_visible(config.num_patches)

    def forward(self, images: Tensor, hidden: Tensor) -> Tensor:
        return self.decoder(self.encode(images, hidden), self._visible(hidden))

    def encode(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Class token, registers and visible patches behind the encoder.

        Args:
            images: normalised pictures.
            hidden: true for hidden patches, of which each picture has equally many.

        Shape:
            (batch, channels, height, width), (batch, patches) -> (batch, tokens, embed)
        """
        # Without their tokens a projection has forgotten the hidden patches. The convolutions and
        # the batch norm of a stem have not, so that the pixels go too.
        images = images.masked_fill(self._pixels_of(hidden), 0.0)
        return self.encoder.forward_tokens(images, self._visible(hidden))

    def fill_in(self, images: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """For looking at: what the encoder sees, and the same with the hidden patches told.

        Each patch told is given the mean and contrast of the true one, which the model is never
        asked for (see `normalise_patches`).
        """
        patch_size = self.encoder.config.patch_size
        _, mean, std = normalise_patches(extract_patches(images, patch_size))
        told = self(images, hidden) * std + mean
        told = join_patches(told, self.encoder.config.image_size, patch_size)
        pixels = self._pixels_of(hidden)
        return images.masked_fill(pixels, 0.0), torch.where(pixels, told, images)

    def _visible(self, hidden: Tensor) -> Tensor:
        """Places of the patches that are not hidden: (batch, patches) -> (batch, visible)."""
        # A search for what is false would have the host wait for a GPU.
        return hidden.byte().argsort(dim=1, stable=True)[:, : self.num_visible]

    def _pixels_of(self, patches: Tensor) -> Tensor:
        """(batch, patches) -> (batch, 1, height, width)."""
        height, width = self.encoder.config.patch_size
        grid = patches.view(len(patches), 1, *self.encoder.config.grid_size)
        return grid.repeat_interleave(height, 2).repeat_interleave(width, 3)


class Decoder(nn.Module):
    """From the visible tokens to the values of all patches (He et al. 2022, section 3).

    Shape:
        (batch, tokens, embed), (batch, visible) int64 -> (batch, patches, values)
    """

    sincos: Tensor

    def __init__(self, encoder: ViT, pretrain: PretrainConfig) -> None:
        super().__init__()
        config, width = encoder.config, pretrain.decoder_dim
        self.grid_size, self.num_prefix_tokens = config.grid_size, encoder.num_prefix_tokens
        self.embed = nn.Linear(config.embed_dim, width)
        self.register_buffer("sincos", sincos2d(self.grid_size, width), persistent=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        plain = ModelConfig(embed_dim=width, num_heads=pretrain.decoder_heads)
        self.blocks = nn.ModuleList(Block(plain, 0.0) for _ in range(pretrain.decoder_depth))
        self.norm = nn.LayerNorm(width, plain.norm_eps)
        height, patch_width = config.patch_size
        self.pred = nn.Linear(width, config.in_channels * height * patch_width)
        initialise.xavier(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        x = self.embed(tokens)
        prefix, seen = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        batch, count, width = len(x), self.grid_size[0] * self.grid_size[1], x.shape[-1]
        # Every seen patch goes to its place; the same learned token stands at all others.
        patches = self.mask_token.to(x.dtype).expand(batch, count, -1)
        patches = patches.scatter(1, visible[..., None].expand(-1, -1, width), seen)
        x = torch.cat([prefix, patches + self.sincos.to(x)], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.pred(self.norm(x[:, self.num_prefix_tokens :]))


def draw_hidden(
    count: int, num_patches: int, pretrain: PretrainConfig, generator: torch.Generator
) -> Tensor:
    """Choose the patches to hide, evenly at random and equally many in each picture.

    Args:
        count: pictures.
        num_patches: of each picture.
        pretrain: has their share.
        generator: CPU generator of all draws.

    Shape:
        -> (count, patches), true for hidden
    """
    order = torch.rand(count, num_patches, generator=generator).argsort(1)
    return order >= pretrain.num_visible(num_patches)


def normalise_patches(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Take each patch's own mean and contrast away: the structure is left to be told.

    Returns:
        The patches, their means and their standard deviations.

    Reference:
        He et al. 2022, section 3, "Reconstruction target"; as in their code the variance is the
        unbiased one, plus 1e-6.
    """
    mean = patches.mean(-1, keepdim=True)
    std = (patches.var(-1, keepdim=True) + 1e-6).sqrt()
    return (patches - mean) / std, mean, std


def hidden_patch_loss(
    told: Tensor, images: Tensor, hidden: Tensor, patch_size: tuple[int, int]
) -> Tensor:
    """Mean squared error on the hidden patches; 1 is what telling each one's mean would give.

    Shape:
        (batch, patches, values), (batch, channels, height, width), (batch, patches) -> ()
    """
    target, _, _ = normalise_patches(extract_patches(images, patch_size))
    return ((told.float() - target).square().mean(-1) * hidden).sum() / hidden.sum()


@torch.inference_mode()
def loss_on(model: MaskedAutoencoder, pictures: PictureSet, config: RunConfig) -> float:
    """The loss on a whole set, under the same masks whenever it is asked for."""
    assert config.pretrain is not None
    model.eval()
    device, total = next(model.parameters()).device, 0.0
    for start in range(0, len(pictures), _BATCH_SIZE):
        pixels, _ = pictures.batch(range(start, min(start + _BATCH_SIZE, len(pictures))))
        images = normalise(pixels.to(device), config.preprocess)
        stream = torch_stream(config.train.seed, "valid mask", start)
        hidden = draw_hidden(len(images), config.model.num_patches, config.pretrain, stream)
        hidden = hidden.to(device)
        loss = hidden_patch_loss(model(images, hidden), images, hidden, config.model.patch_size)
        total += loss.item() * len(images)
    return total / len(pictures)


@torch.inference_mode()
def reconstructions(
    model: MaskedAutoencoder, pictures: PictureSet, config: RunConfig, count: int = 8
) -> tuple[Tensor, Tensor, Tensor]:
    """The first pictures of a set, as the encoder sees them, and filled in.

    Shape:
        -> three of (count, channels, height, width), normalised
    """
    assert config.pretrain is not None
    device = next(model.parameters()).device
    pixels, _ = pictures.batch(range(min(count, len(pictures))))
    images = normalise(pixels.to(device), config.preprocess)
    stream = torch_stream(config.train.seed, "valid mask", 0)
    hidden = draw_hidden(len(images), config.model.num_patches, config.pretrain, stream)
    return (images, *model.eval().fill_in(images, hidden.to(device)))


class PatchLearner(Learner[MaskedAutoencoder]):
    """Learns to fill in hidden patches.

    Args:
        config: every setting, with a section `pretrain`.
        pictures: to learn from; labels don't matter.
    """

    command = "pretrain"

    def __init__(self, config: RunConfig, pictures: PictureSet) -> None:
        assert config.pretrain is not None
        self.pretrain = config.pretrain

        def first_model() -> MaskedAutoencoder:
            model = MaskedAutoencoder(config.model, self.pretrain)
            model.encoder.grad_checkpointing = config.train.grad_checkpointing
            return model

        super().__init__(config, pictures, first_model)

    def inputs(self, step: int, progress: float) -> tuple[Tensor, ...]:
        """Pictures, augmented in the same way all through the run, and which patches are hidden."""
        config, seed, model = self.config, self.config.train.seed, self.config.model
        order, part = self.order.step(step), self.part
        pixels, _ = self.feed.batch([order[row] for row in part.rows.tolist()])
        images = normalise(pixels, config.preprocess)
        draws = torch_stream(seed, "augment", step)
        images = augment(images, config.augment, draws, part=part)
        hidden = draw_hidden(
            part.batch, model.num_patches, self.pretrain, torch_stream(seed, "mask", step)
        )
        return images, part.of(hidden).to(self.device)

    def loss(self, model: MaskedAutoencoder, *inputs: Tensor) -> Tensor:
        """Of the hidden patches."""
        images, hidden = inputs
        with self.autocast():
            told = model(images, hidden)
        return hidden_patch_loss(told, images, hidden, self.config.model.patch_size)

    def save_weights(self, path: Path) -> None:
        """Write the encoder, without the decoder."""
        tensors = without_pooling(without_head(self.averaged().encoder.state_dict()))
        save_encoder(path, Encoder(self.config.model, self.config.preprocess, tensors))
