"""Programs: a user's model as unnormalised densities over its latents, one number per datum.

Data come in by `rows`, in the structure that the model is called with; what tracing the model found is in `found`.
Densities and chains (`densities`), latents in other coordinates (`moves`) and draws (`draws`) are computed at the rows
they are about, by the backend's `Traced`; `Program` puts these parts together.
"""

from pplebm.program.found import Coordinates as Coordinates
from pplebm.program.program import Program as Program
