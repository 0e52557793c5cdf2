"""``python -m sb3_fcdl.cli``"""

import sys

from sb3_fcdl.cli import main

sys.exit(main())
