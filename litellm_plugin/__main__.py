"""``python -m litellm_plugin``: the ``litellm-plugin`` command."""

from litellm_plugin.cli import main

if __name__ == "__main__":
    main(prog_name="python -m litellm_plugin")
