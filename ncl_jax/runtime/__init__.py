"""What is asked of the machine: devices, files, memory, console, signals, start-up."""
