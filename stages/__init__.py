import atexit
import gc

from stages.lib.errors import quiet_until_main
from stages.lib.imports import spare_compiler_and_hub

quiet_until_main()
spare_compiler_and_hub()  # before any module of the stages imports what would bring them
# Half a million objects come with the libraries and stay. Looking through them again and again took a tenth of the start, and
# once more at the end, when the process goes anyway, nearly a second.
gc.set_threshold(50_000, 20, 100)
atexit.register(gc.freeze)
