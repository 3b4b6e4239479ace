import sys

from repository_check import main

sys.exit(main())
