"""What ends a verb of this package with one line for the user.

ValueError
├── PreprocessingError                    the input, the options or the output cannot work
│   └── download.archives.DamagedFileError    a download is not worth keeping
├── images.reading.UnreadableImageError   one file is refused; the job goes on without it
└── manifest.ManifestError                a dataset cannot be read
RuntimeError
├── EngineError                           Beam's engine failed, and the job with it
└── shards.ShardWriteError                a worker could not write, for want of space or rights
"""


class PreprocessingError(ValueError):
    """The input, the options or the output folder cannot work; the message names the mend."""


class EngineError(RuntimeError):
    """Beam's engine failed; the message gives what it said and where all of it is."""
