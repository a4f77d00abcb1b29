"""One page in one file for a browser: what was verified, and an explorer of learning curves.

It is told by `report_page`, which takes what `verify` found, or what `read_results` reads of a directory that it wrote.
"""

from gradstarve.page._build import report_page
from gradstarve.page._curves import explorer_data
from gradstarve.page._figures import figure_svg
from gradstarve.page._mathml import mathml
from gradstarve.page._results import read_results

__all__ = ["explorer_data", "figure_svg", "mathml", "read_results", "report_page"]
