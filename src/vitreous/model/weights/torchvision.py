"""torchvision's names for its ViTs.

Its files say nothing of preprocessing; its documentation gives ImageNet's mean and std.
"""

from vitreous.model.weights.files import Source
from vitreous.model.weights.naming import head_behind_tanh, rename, unwrapped
from vitreous.model.weights.translation import Stated, Translation, Wanted, settle

_BLOCK = r"encoder\.layers\.encoder_layer_(\d+)\."
_RULES = (
    (r"conv_proj\.(\w+)", r"patch_embed.proj.\1"),
    ("class_token", "cls_token"),
    (r"encoder\.pos_embedding", "pos_embed"),
    (rf"{_BLOCK}ln_([12])\.(\w+)", r"blocks.\1.norm\2.\3"),
    (rf"{_BLOCK}self_attention\.in_proj_(\w+)", r"blocks.\1.attn.qkv.\2"),
    (rf"{_BLOCK}self_attention\.out_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
    # The second layer of the first two versions was called linear_2.
    (rf"{_BLOCK}mlp\.(?:0|linear_1)\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
    (rf"{_BLOCK}mlp\.(?:3|linear_2)\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
    (r"encoder\.ln\.(\w+)", r"norm.\1"),
    (r"heads\.head\.(\w+)", r"head.\1"),
)


def matches(source: Source) -> bool:
    """Whether the tensors have these names."""
    return {"conv_proj.weight", "class_token"} <= unwrapped(source.tensors).keys()


def translate(source: Source, wanted: Wanted) -> Translation:
    """Read a state dict.

    Raises:
        WeightsError: where it isn't a plain ViT.
    """
    tensors = unwrapped(source.tensors)
    unused = head_behind_tanh(tensors, r"heads\.pre_logits\..*", r"heads\..*")
    state, notes = rename(tensors, _RULES, unused, source.path)
    return settle(source.path, "torchvision", state, Stated(norm_eps=1e-6, notes=notes), wanted)
