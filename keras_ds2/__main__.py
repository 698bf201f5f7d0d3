"""`python -m keras_ds2` is `keras-ds2`."""

import sys

from keras_ds2.cli.main import main

sys.exit(main())
