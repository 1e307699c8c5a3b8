from .cli import main
from .secrecy import no_core_dumps

no_core_dumps()
main()
