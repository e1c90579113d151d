"""Batch: many scans in, many restorations out.

Files, each importing only those before it:

    settings    what a run may be told, and what became of an input
    staging     several files that appear together, or not at all
    plan        which inputs there are and what each will write
    prepare     what is decided about one scan before it is restored
    run         one scan after the other

Import from these files: nothing is re-exported here, so that the command line can know the
settings without waiting for torch.
"""
