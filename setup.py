"""Compiles `protos/` into `extproc/state/pb/` whenever the package is built (wheel or editable)."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
OUT = ROOT / "extproc" / "state" / "pb"


class BuildWithProtos(build_py):  # type: ignore[misc]  # setuptools has no types
    """`build_py` that generates the protobuf modules first, so that both kinds of install find them."""

    def run(self) -> None:
        """Generate, then build as usual."""
        generate()
        super().run()


def generate() -> None:
    """Compile every .proto below `protos/` to a module and its type stub.

    Raises RuntimeError with the compiler's exit code when a file does not compile.
    """
    from grpc_tools import protoc  # noqa: PLC0415  (needed by builds only, not by the metadata hooks)

    OUT.mkdir(exist_ok=True)
    (OUT / "__init__.py").write_text('"""Generated from protos/ by the build; not edited, not committed."""\n')
    for source in sorted((ROOT / "protos").rglob("*.proto")):
        flat = ["protoc", f"-I{source.parent}", f"--python_out={OUT}", f"--pyi_out={OUT}", str(source)]
        code = protoc.main(flat)
        if code != 0:
            raise RuntimeError(f"protoc failed with exit code {code} on {source}")


setup(cmdclass={"build_py": BuildWithProtos})
