"""Layer 3: one guest: the host it runs on, its QEMU process, keyboard, screen, console and watch."""
