import gc

from stages.lib.errors import quiet_until_main
from stages.lib.imports import spare_the_compiler

quiet_until_main()
spare_the_compiler()  # before any module of the stages imports what would bring it
# Half a million objects come with the libraries and stay; looking through them again and again took a tenth of the start.
gc.set_threshold(50_000, 20, 100)
