"""Compiles `protos/` into `extproc/state/pb/` whenever the package is built (wheel or editable)."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
GENERATED = "extproc.state.pb"
OUT = ROOT / "extproc" / "state" / "pb"


class BuildWithProtos(build_py):  # type: ignore[misc]  # setuptools has no types
    """A `build_py` that first generates the protobuf modules, so that wheels and editable installs have them."""

    def run(self) -> None:
        """Generate the modules, then build as usual."""
        generate()
        # setuptools listed the packages before this one existed.
        if GENERATED not in self.packages:
            self.packages.append(GENERATED)
        super().run()


def generate() -> None:
    """Compile every .proto file below `protos/` to a module and its type stub.

    Raises RuntimeError with the compiler's exit code if a file does not compile.
    """
    from grpc_tools import protoc  # noqa: PLC0415  (needed only by builds, not by the metadata hooks)

    OUT.mkdir(exist_ok=True)
    (OUT / "__init__.py").write_text('"""Generated from protos/ by the build; not edited, not committed."""\n')
    for source in sorted((ROOT / "protos").rglob("*.proto")):
        flat = ["protoc", f"-I{source.parent}", f"--python_out={OUT}", f"--pyi_out={OUT}", str(source)]
        code = protoc.main(flat)
        if code != 0:
            raise RuntimeError(f"protoc failed with exit code {code} on {source}")


setup(cmdclass={"build_py": BuildWithProtos})
