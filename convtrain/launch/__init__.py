"""How a training starts: in this process, in one process a device, or as a job of Hydra's."""
