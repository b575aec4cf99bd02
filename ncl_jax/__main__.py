"""`python -m ncl_jax COMMAND` is `ncl-jax COMMAND`."""

from ncl_jax import cli

if __name__ == "__main__":
    cli.main()
