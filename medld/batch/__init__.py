"""Batch: many scans in, many restorations out.

Files, each importing only those before it:

    settings    what a run may be told, and what became of an input
    staging     files and folders that appear together, or not at all
    names       what an output is called
    inputs      one scan to restore: an image file, or a volume of a DICOM series
    options     what options mean for the inputs that were found
    search      which inputs there are
    plan        what each of them will write
    thickness   how thick its slices are
    profile     and of what shape, by its voxels if nobody knows
    prepare     what is decided about one scan before it is restored
    scope       whether the model should restore it
    doubt       how far to trust what it made
    outputs     a restoration and its record as files
    run         one scan after the other

    survey      what there is at a path, from headers alone (`medld inspect`)
    convert     what was read, untouched, in another format (`medld convert`)

Import from these files: nothing is re-exported here, so that the command line can know the
settings without waiting for torch.
"""
