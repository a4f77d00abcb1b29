"""One page in one file for a browser: what was verified, and an explorer of learning curves.

It is told by `report_page`, which takes what `verify` found, or what `read_results` reads of a directory that it wrote.
"""

from gradstarve.page.build import report_page
from gradstarve.page.curves import explorer_data
from gradstarve.page.figures import figure_svg
from gradstarve.page.mathml import mathml
from gradstarve.page.results import read_results

__all__ = ["explorer_data", "figure_svg", "mathml", "read_results", "report_page"]
