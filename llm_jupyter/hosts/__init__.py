"""Model-server processes: started, shared between kernels, watched, started again, stopped.

`spec` says what a host is, `sight` how one looks from outside, `seat` is this kernel's hold of one, `manager` keeps them all,
`builtin` are those that need no settings, `serving` says which of them is behind a provider, `llama` gives the embedded
model a shared process.
"""

from llm_jupyter.hosts._remedies import remedy as remedy
from llm_jupyter.hosts.builtin import builtin_specs as builtin_specs
from llm_jupyter.hosts.builtin import spec_from_settings as spec_from_settings
from llm_jupyter.hosts.llama import SharedLlama as SharedLlama
from llm_jupyter.hosts.manager import LLMHostManager as LLMHostManager
from llm_jupyter.hosts.serving import ServingHosts as ServingHosts
from llm_jupyter.hosts.spec import HostSpec as HostSpec
from llm_jupyter.hosts.spec import HostStatus as HostStatus
from llm_jupyter.hosts.spec import Running as Running
