"""``mlxtune bench``: how fast this machine is, in one line."""

import click

from mlxtune.cli.output import Output, output_options


@click.command()
@output_options
def command(output: Output) -> None:
    """Measure this machine in two minutes at most, and print one line to send in.

    Products of matrices, memory, training steps and tokens written, with a made-up network of the default model's
    shape: nothing is downloaded, and nothing is sent. The line names the processor, and neither you nor your machine.
    """
    from mlxtune.device.choose import open_device
    from mlxtune.iteration.bench import bench

    found = bench(open_device(output.device), progress=output.progress)
    output.show(found.to_json(), found.line())
