"""Registers the splitting from inside an i-PI input, for an unmodified ``i-pi input.xml``.

Copy this file next to the input and put this before ``<system>``; no ``<force>`` refers to it::

    <ffdirect name='respa-baoab'>
       <pes>custom</pes> <pes_path>register.py</pes_path>
    </ffdirect>

i-PI runs the file when it sets up its force fields, in the order of the input, which is after the
tags were read: the splitting works, but the tag ``<force_clip>`` is not known on this route and the
bound is the default one.
"""

from ipi.pes.dummy import Dummy_driver

from integrators.ipi.plugin import register

__all__ = ["Dummy_driver"]

__DRIVER_NAME__ = "respa-baoab"
__DRIVER_CLASS__ = "Dummy_driver"

register()
