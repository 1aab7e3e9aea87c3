"""What is particular to one kind of data: networks, encoders, metrics, pictures, and the adapters users hold."""
