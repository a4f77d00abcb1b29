"""The base of all other packages: arrays, arguments, errors, files, progress, style and text.

The command line prints its options before JAX is imported, so the modules that need JAX are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradstarve.ground import _cache as cache
from gradstarve.ground import _files as files
from gradstarve.ground import _progress as progress
from gradstarve.ground import _style as style
from gradstarve.ground import _text as text
from gradstarve.ground._cache import enable_compilation_cache
from gradstarve.ground._deprecated import deprecated, warn_deprecated
from gradstarve.ground._errors import ConvergenceError, HypothesisError
from gradstarve.ground._files import environment
from gradstarve.ground._laws import LOSS_NAMES, SECTIONS, Law, laws, place
from gradstarve.ground._progress import Progress, say
from gradstarve.ground._style import (
    COLOURS,
    DARK,
    DPI,
    FAINT,
    FILLS,
    FORMATS,
    GUIDE,
    INK,
    MAP,
    NOTE,
    ORDERED,
    RC,
    SHADE,
    axes_for,
    figure_size,
    headline,
    line_width,
    new_figure,
    png_bytes,
    save,
    sheet,
    signed_map,
    text_size,
)
from gradstarve.ground._text import (
    csv_text,
    did_you_mean,
    fields_html,
    html_lines,
    html_table,
    meant,
    number,
    short_repr,
    shown,
    table_text,
    to_jsonable,
    which_network,
)

if TYPE_CHECKING:
    from gradstarve.ground._arguments import (
        as_choice,
        as_flag,
        as_seed,
        can_pickle,
        check_instance,
        one_key,
        positive_int,
        some_keys,
        suggesting,
    )
    from gradstarve.ground._arrays import (
        any_array,
        as_array,
        as_floats,
        as_goal,
        as_number,
        as_pair,
        check_finite,
        check_fits,
        check_least,
        check_normal,
        check_normal_product,
        check_normal_rows,
        check_normal_size,
        check_positive,
        check_shares,
        check_sum_is_one,
        check_together,
        is_concrete,
        is_subnormal,
        log_sum,
        one_number,
        readable,
        real_arrays,
        together,
    )
    from gradstarve.ground._compile import MANY, quick_jit, quick_to_compile, quickest_to_compile
else:

    def __getattr__(name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"module 'gradstarve.ground' has no attribute {name!r}")
        from gradstarve.ground import _arguments, _arrays, _compile

        return getattr(next((room for room in (_arguments, _arrays) if hasattr(room, name)), _compile), name)
