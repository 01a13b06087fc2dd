"""Which layer of a Keras file is which layer of the lecture's model.

Paths follow the attribute names of whoever wrote the classes, so layers are told apart by the
shapes of their tensors, by what lies together in the file and, among equals, by their numbers.
Where that leaves a choice it is an error that asks for a name map; nothing is guessed.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitreous.core.config import did_you_mean
from vitreous.errors import WeightsError
from vitreous.model.config import ModelConfig
from vitreous.model.weights.keras_file import KerasLayer, Kind, natural

ROLES = ("query", "key", "value", "output")
_FRONT, _REST = "front", "rest"


@dataclass(frozen=True)
class Slot:
    """A layer that the model has: our name for it, and what Keras' tensors of it look like."""

    name: str
    kind: Kind
    shapes: tuple[tuple[int, ...], ...]


class KerasStructure:
    """The layers of a file and what lies together.

    A group of the file that holds one attention is an encoder; one that holds the table of
    positions and no attention is the patch encoder; what no such group holds is the rest: the
    head, or in a file without groups everything, in the order of its numbers.

    Args:
        file: for messages.
        layers: all of them.
        names: our layer's or block's name to a path, where the file is ambiguous.

    Raises:
        WeightsError: without exactly one table, or without attentions.
    """

    def __init__(self, file: Path, layers: Sequence[KerasLayer], names: Mapping[str, str]) -> None:
        self._file, self._layers, self._names = file, layers, names
        tables = [layer for layer in layers if layer.kind == "table"]
        if len(tables) != 1:
            raise self._error(f"has {len(tables)} embedding tables instead of 1", tables)
        self._table = tables[0]
        self._attentions = self._find_attentions()
        paths = list(self._attentions)

        def holds(group: str, found: Sequence[str]) -> int:
            return sum(path.startswith(group) for path in found)

        table = [self._table.path]
        self._groups = {_FRONT: _outermost(self._table.path, lambda group: not holds(group, paths))}
        for index, path in enumerate(paths):
            self._groups[f"blocks.{index}"] = _outermost(
                path, lambda group: holds(group, paths) == 1 and not holds(group, table)
            )

    def config(self, image_size: tuple[int, int] | None) -> ModelConfig:
        """The sizes of the model, from shapes alone.

        Args:
            image_size: height and width in pixels, where the patches don't make a square.
        """
        num_patches, width = self._table.shapes[0]
        _, heads, head_dim = next(iter(self._attentions.values()))["query"].shapes[0]
        projection, mlp, head = self._dense_layers()
        pixels = projection.shapes[0][0]
        channels = 3 if 3 * math.isqrt(pixels // 3) ** 2 == pixels else 1
        patch, side = math.isqrt(pixels // channels), math.isqrt(num_patches)
        if image_size is None and side * side != num_patches:
            raise self._error(
                f"has {num_patches} patches, which make no square: give image_size=(height, width)"
            )
        hidden = {layer.shapes[0][1] for layer in mlp} - {width}
        widths = self._widths(head, num_patches * width)
        return ModelConfig(
            image_size=image_size or (side * patch, side * patch),
            patch_size=(patch, patch),
            in_channels=channels,
            num_classes=widths[-1],
            embed_dim=width,
            depth=len(self._attentions),
            num_heads=heads,
            head_dim=head_dim,
            mlp_dim=next(iter(hidden), width),
            class_token=False,
            pool="flatten",
            head_hidden=tuple(widths[:-1]),
            mlp_output_activation=True,
            final_norm=False,
            norm_eps=1e-3,
            init="keras2",
        )

    def match(self, slots: Sequence[Slot]) -> dict[str, KerasLayer]:
        """The file's layer for each of the model's.

        Raises:
            WeightsError: where one is missing, left over, of another shape or can't be told from
                another.
        """
        matched = {"pos_embed": self._table}
        for index, parts in enumerate(self._attentions.values()):
            matched |= {f"blocks.{index}.attn.{role}": part for role, part in parts.items()}
        matched |= self._named({slot.name for slot in slots})
        taken = {layer.path for layer in matched.values()}
        buckets: dict[tuple[str, Kind, tuple[tuple[int, ...], ...]], list[str]] = {}
        for slot in slots:
            if slot.name not in matched:
                bucket = (self._place_of_slot(slot.name), slot.kind, slot.shapes)
                buckets.setdefault(bucket, []).append(slot.name)
        for (place, kind, shapes), wanted in buckets.items():
            there = [layer for layer in self._within(place, kind) if layer.path not in taken]
            found = [layer for layer in there if layer.shapes == shapes]
            if len(found) != len(wanted):
                raise self._error(
                    f"has {len(found)} layers {_text(shapes)} where {len(wanted)} are needed, for "
                    f"{', '.join(wanted)}",
                    there,
                )
            matched |= zip(wanted, self._ordered(found), strict=True)
        self._check_shapes(slots, matched)
        return matched

    def _check_shapes(self, slots: Sequence[Slot], matched: Mapping[str, KerasLayer]) -> None:
        wanted = {slot.name: slot.shapes for slot in slots}
        for name, layer in matched.items():
            if name not in wanted:
                raise self._error(f"has a layer more than the model, {name}", [layer])
            if layer.shapes != wanted[name]:
                raise self._error(f"doesn't fit: {name} is {_text(wanted[name])}", [layer])
        used = {layer.path for layer in matched.values()}
        if left := [layer for layer in self._layers if layer.path not in used]:
            raise self._error("has more layers than the lecture's model", left)

    def _dense_layers(self) -> tuple[KerasLayer, list[KerasLayer], list[KerasLayer]]:
        """The projection, the first block's MLP, and the head in no certain order."""
        rest = self._within(_REST, "dense")
        # What has no group of its own stands in the rest, in the order of the forward pass.
        if self._groups[_FRONT]:
            front = self._within(_FRONT, "dense")
        else:
            front, rest = rest[:1], rest[1:]
        if self._groups["blocks.0"]:
            mlp = self._within("blocks.0", "dense")
        else:
            mlp, rest = rest[:2], rest[2 * len(self._attentions) :]
        if len(front) != 1 or len(mlp) != 2:
            raise self._error(
                f"has {len(front)} dense layers beside its positions and {len(mlp)} beside its "
                "first attention instead of 1 and 2",
                [*front, *mlp],
            )
        return front[0], mlp, rest

    def _widths(self, head: Sequence[KerasLayer], inputs: int) -> list[int]:
        """Output widths of the head's layers, each as wide as the next one's input."""
        rest, widths = list(head), []
        while rest:
            fitting = [layer for layer in rest if layer.shapes[0][0] == inputs]
            if not fitting:
                raise self._error(f"has no dense layer of the head for {inputs} inputs", rest)
            # Of two that fit, the square one leads to the other.
            layer = min(fitting, key=lambda layer: layer.shapes[0][1] != inputs)
            rest.remove(layer)
            inputs = layer.shapes[0][1]
            widths.append(inputs)
        if not widths:
            raise self._error("has no dense layers behind its encoders")
        return widths

    def _place_of_slot(self, name: str) -> str:
        block = ".".join(name.split(".")[:2])
        place = _FRONT if name == "patch_embed.proj" else block
        return place if self._groups.get(place) else _REST

    def _within(self, place: str, kind: Kind) -> list[KerasLayer]:
        """Layers of a kind in a group, or in none of the groups."""
        groups = tuple(group for group in self._groups.values() if group)
        if place == _REST:
            inside = [layer for layer in self._layers if not layer.path.startswith(groups)]
        else:
            group = self._groups[place]
            inside = [layer for layer in self._layers if group and layer.path.startswith(group)]
        return [layer for layer in inside if layer.kind == kind]

    def _named(self, known: set[str]) -> dict[str, KerasLayer]:
        """The layers that the name map names."""
        named = {}
        for name, path in self._names.items():
            if name in self._groups:
                continue
            if name not in known:
                raise WeightsError(f"unknown layer '{name}': {did_you_mean(name, known)}")
            paths = {layer.path: layer for layer in self._layers}
            if path not in paths:
                raise self._error(f"has no layer '{path}': {did_you_mean(path, paths)}")
            named[name] = paths[path]
        return named

    def _find_attentions(self) -> dict[str, dict[str, KerasLayer]]:
        """The four parts of each multi-head attention by its path, in the order of the blocks."""
        found: dict[str, dict[str, KerasLayer]] = {}
        for layer in self._layers:
            if layer.kind in ("heads_in", "heads_out"):
                path, _, name = layer.path.rpartition("/")
                role = next((role for role in ROLES if role in name), name)
                found.setdefault(path, {})[role] = layer
        if not found:
            raise self._error("has no MultiHeadAttention layer: it isn't the lecture's model")
        for parts in found.values():
            if set(parts) != set(ROLES):
                raise self._error(
                    f"has an attention of {', '.join(sorted(parts))} instead of {', '.join(ROLES)}",
                    [*parts.values()],
                )
        groups = [self._names.get(f"blocks.{index}") for index in range(len(found))]
        if any(groups):
            order = [path for group in groups for path in found if _is_in(path, group)]
            if sorted(order) != sorted(found):
                raise self._error(
                    f"has {len(found)} attentions: name a group of it for each of blocks.0 to "
                    f"blocks.{len(found) - 1}, or for none",
                    [parts["query"] for parts in found.values()],
                )
        else:
            queries = self._ordered([parts["query"] for parts in found.values()])
            order = [query.path.rpartition("/")[0] for query in queries]
        return {path: found[path] for path in order}

    def _ordered(self, layers: list[KerasLayer]) -> list[KerasLayer]:
        """Equal layers in the order of their numbers, by path or else by Keras' own labels."""
        paths = {layer.path: layer for layer in layers}
        labels = {layer.label: layer for layer in layers}
        for texts in (paths, labels):
            stems = {re.sub(r"_?\d+", "", text) for text in texts}
            if len(texts) == len(layers) and len(stems) == 1:
                return [texts[text] for text in sorted(texts, key=natural)]
        raise self._error(
            "has layers that only a name map tells apart, such as names={'blocks.0.norm1': PATH}",
            layers,
        )

    def _error(self, text: str, layers: Sequence[KerasLayer] = ()) -> WeightsError:
        """A message that names the file and the layers that it is about."""
        about = "; ".join(f"{layer.path} {_text(layer.shapes)}" for layer in layers)
        return WeightsError(f"{self._file} {text}" + (f": {about}" if about else ""))


def _outermost(path: str, fits: Callable[[str], bool]) -> str | None:
    """The widest group around a path that fits, with a slash behind it."""
    parts = path.split("/")[:-1]
    groups = ("/".join(parts[:depth]) + "/" for depth in range(1, len(parts) + 1))
    return next((group for group in groups if fits(group)), None)


def _is_in(path: str, group: str | None) -> bool:
    return group is not None and f"{path}/".startswith(group.rstrip("/") + "/")


def _text(shapes: tuple[tuple[int, ...], ...]) -> str:
    return " + ".join("x".join(map(str, shape)) for shape in shapes)
