"""Run by serving.py: ``mlx_lm.server``, as it is.

mlxtune is imported first, so that mlx_lm too multiplies with the fast BLAS: with the one in MLX's Linux wheel it would
be many times slower. The arguments are the server's own, after the device.
"""

import sys

import mlxtune  # noqa: F401 - opens the BLAS, before any other import of mlx

# isort: split
import mlx.core as mx

if __name__ == "__main__":
    device = sys.argv.pop(1)
    if device == "cpu":
        mx.set_default_device(mx.Device(mx.cpu))
    from mlx_lm.server import main

    main()
