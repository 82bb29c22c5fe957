"""Run by serving.py: ``mlx_lm.server``, as it is.

Where its first argument is ``fast-blas`` mlxtune is imported first, so that mlx_lm too multiplies with the fast BLAS;
with ``own-blas`` it has the one in MLX's wheel, as where it is installed by itself. The device comes next, and then the
server's own arguments.
"""

import sys

if __name__ == "__main__":
    blas, device = sys.argv.pop(1), sys.argv.pop(1)
    if blas == "fast-blas":
        import mlxtune  # noqa: F401 - opens the BLAS, before any other import of mlx
    import mlx.core as mx

    if device == "cpu":
        mx.set_default_device(mx.Device(mx.cpu))
    from mlx_lm.server import main

    main()
