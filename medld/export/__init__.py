"""Export: a model folder in the form that others publish and run models in.

    source      what a model folder tells about itself, figures beside it included
    card        that as Markdown
    folder      a folder that appears whole or not at all
    bundle      what the config of a MONAI bundle instantiates: the network, and the run over files
    metadata    the bundle's JSON files, checked against `schemas/`
    run         `export_model`: both forms

Weight files are copied, never converted: hashes stay, and nothing is pickled.
"""

from medld.export.run import FORMATS, export_model

__all__ = ["FORMATS", "export_model"]
