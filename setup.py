"""The optional build: ``P2PMQTT_MYPYC=1 pip install .`` compiles the codec with mypyc (docs/performance.md).

Without that variable this adds nothing to setup.cfg, where everything else is: neither it nor pyproject.toml can say
"if".  ``Message`` and the packets stay as they are: the rest of the broker reads their attributes, which takes three
times as long of a compiled class.
"""

import glob
import os
import sys

from setuptools import setup

COMPILED = [
    f"twisted_p2pmqtt/codec/{name}.py" for name in ("decode", "primitives", "properties", "reader", "topics", "writer")
]

if os.environ.get("P2PMQTT_MYPYC") != "1":
    setup()
elif {"egg_info", "dist_info"} & set(sys.argv):  # pip asks what this is and what building it needs
    setup(setup_requires=["mypy >= 2"])
else:
    from mypyc.build import mypycify

    setup(
        ext_modules=mypycify(
            # The codec by itself: without pyproject.toml, which asks for a plugin, and what the package imports.
            ["--config-file=", "--follow-imports=skip", *glob.glob("twisted_p2pmqtt/codec/*.py")],
            only_compile_paths=COMPILED,
            group_name="twisted_p2pmqtt",
        )
    )
