"""The command that writes a model for other programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from vitreous import options, printing

if TYPE_CHECKING:
    from vitreous.exporting.gate import Gate


@click.command()
@click.argument("run", type=options.PLACE)
@click.option("--to", type=click.Choice(["onnx", "torch", "openvino", "web", "timm", "transformers",
                                         "safetensors", "keras"]),
              help="Format. [what --out ends like, else onnx]")  # fmt: skip
@click.option("-o", "--out", type=options.PATH,
              help="New file or folder. [in RUN, under its name]")  # fmt: skip
@click.option("--license", help="Of the model, for a sealed file: CC-BY-4.0, say.")
@click.option("--runtime", type=options.PATH, metavar="FOLDER",
              help="With --to web: a copy of onnxruntime-web. [downloaded once]")  # fmt: skip
@click.option("--precision", type=click.Choice(["float32", "int8", "int8-weights", "fp16"]),
              default="float32", show_default=True,
              help="Of the network in a sealed ONNX file.")  # fmt: skip
@click.option("--max-drop", type=float,
              help="Points of accuracy that fewer bits may cost. [0.5]")  # fmt: skip
@click.option("--data", type=options.PATH,
              help="Pictures to see that on. [those that chose the weights]")  # fmt: skip
@options.checkpoint
@options.json
@options.quiet
def export(
    run: str,
    to: str | None,
    out: Path | None,
    license: str | None,
    runtime: Path | None,
    precision: Literal["float32", "int8", "int8-weights", "fp16"],
    max_drop: float | None,
    data: Path | None,
    labels: Path | None,
    preprocess: tuple[str, ...],
    num_heads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write the model of RUN for other programs.

    Sealed files (onnx, torch, openvino) take a picture of any size and give probabilities, with
    all that lies between inside; web is a folder with a page that runs one in the visitor's
    browser, without a server of its own. The others are a folder that timm or transformers
    loads, one safetensors file with everything in it, or, of the lecture's model, a file for Keras.
    RUN is a run's folder, its weights, or a checkpoint of another library, also on the Hugging Face
    hub; with --to web a sealed onnx file too.

    A network with fewer bits is compared with float32 on labelled pictures first; what that costs
    and gains is told, and what surely costs more than --max-drop is not written.
    """
    from vitreous import api

    def tell(gate: "Gate") -> None:
        if as_json:
            printing.print_json(gate.to_json())
        else:
            printing.print_gate(gate)

    path = api.export(
        run,
        out,
        to=to,
        license=license,
        runtime=runtime,
        precision=precision,
        max_drop=max_drop,
        data=data,
        on_gate=tell,
        labels=labels,
        preprocess=preprocess,
        num_heads=num_heads,
        console=options.console(quiet),
    )
    if not as_json:
        click.echo(printing.printable(str(path)))
    elif precision == "float32":
        printing.print_json({"file": str(path)})
