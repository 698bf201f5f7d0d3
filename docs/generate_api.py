"""Writes docs/api.md from the docstrings of every public name.

python docs/generate_api.py
"""

import inspect
import pathlib
import textwrap

import keras_ds2


def methods(prefix: str, cls: type) -> list[str]:
    """Documents what a class of ours adds to Keras's."""
    parts = []
    for base in cls.__mro__:
        if not base.__module__.startswith("keras_ds2"):
            continue
        for name, member in vars(base).items():
            is_method = inspect.isfunction(member)
            if name.startswith("_") or not member.__doc__:
                continue
            if not (is_method or isinstance(member, property)):
                continue
            if is_method:
                name += str(inspect.signature(member))
            text = inspect.cleandoc(member.__doc__)
            parts.append(f"### `{prefix}.{name}`\n\n```text\n{text}\n```")
    return parts


def reference() -> str:
    """Returns the text of api.md."""
    parts = ["# Reference", "Written by `python docs/generate_api.py`."]
    for prefix, module in (
        ("keras_ds2", keras_ds2),
        ("keras_ds2.data", keras_ds2.data),
    ):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.ismodule(value):
                continue
            try:
                call = f"{prefix}.{name}{inspect.signature(value)}"
            except ValueError:  # exceptions without a constructor of their own
                call = f"{prefix}.{name}(message)"
            call = textwrap.fill(call, 80, subsequent_indent="    ")
            parts.append(f"## `{prefix}.{name}`")
            parts.append(f"```\n{call}\n```")
            parts.append(f"```text\n{inspect.getdoc(value)}\n```")
            if inspect.isclass(value):
                parts += methods(f"{prefix}.{name}", value)
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    pathlib.Path(__file__).with_name("api.md").write_text(reference())
