"""Shared by the nvml source's tests: a busy GPU as the stand-in takes it."""

from fakenvml.driver import Machine

GPU0, GPU1 = Machine.uuid(0), Machine.uuid(1)
BUSY = "gpu g0 clock=1800 sm=0.95 hmma=0.45 fp32=0.055 power=655000 dram=0.4"
ALL_CYCLES = {248, 249, 250, 251, 252, 253, 254, 257, 258, 259, 260}
